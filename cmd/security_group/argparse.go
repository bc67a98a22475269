package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// option is one that starts with --.
type option struct {
	name string // without --
	flag bool   // takes no value
}

// options are the stock script's, in its order, which usage shows.
var options = []option{
	{name: "vmname"}, {name: "vmip"}, {name: "vmip6"}, {name: "vmid"}, {name: "vmmac"}, {name: "vif"}, {name: "sig"}, {name: "seq"},
	{name: "rules"}, {name: "brname"}, {name: "localbrname"}, {name: "dhcpSvr"}, {name: "hostIp"}, {name: "hostMacAddr"},
	{name: "nicsecips"}, {name: "action"}, {name: "privnic"}, {name: "isFirstNic", flag: true}, {name: "check", flag: true},
	{name: "directrouted", flag: true},
}

// arguments are what a command line says.
type arguments struct {
	command string
	values  map[string]string // by name; flags have ""
	help    bool
}

func (a arguments) has(name string) bool { _, ok := a.values[name]; return ok }

// usageError ends the command with status 2.
type usageError string

func (e usageError) Error() string { return string(e) }

// negativeNumber is what Python's argparse takes for a value though it starts
// with -, since no option looks like one.
var negativeNumber = regexp.MustCompile(`^-\d+$|^-\d*\.\d+$`)

// parse reads a command line as Python's argparse does: options anywhere, by
// any unique prefix, with their value behind = or as the next argument, which
// must not look like an option.
func parse(args []string) (a arguments, err error) {
	a.values = map[string]string{}
	var unknown []string
	given := false // the command
	positional := func(s string) {
		if !given {
			a.command, given = s, true
		} else {
			unknown = append(unknown, s)
		}
	}
	onlyPositionals := false
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case onlyPositionals || !looksLikeOption(arg):
			positional(arg)
			continue
		case arg == "--":
			onlyPositionals = true
			continue
		case arg == "-h":
			return arguments{help: true}, nil
		case strings.HasPrefix(arg, "-h"):
			return a, usageError("argument -h/--help: ignored explicit argument " + quote(strings.TrimPrefix(arg[2:], "=")))
		}
		name, value, explicit := strings.Cut(arg, "=")
		o, err := find(name, arg)
		switch {
		case err != nil:
			return a, err
		case o == nil:
			unknown = append(unknown, arg)
		case o.name == "help" && !explicit:
			return arguments{help: true}, nil
		case o.flag && explicit:
			names := "--" + o.name
			if o.name == "help" {
				names = "-h/--help"
			}
			return a, usageError(fmt.Sprintf("argument %s: ignored explicit argument %s", names, quote(value)))
		case o.flag:
			a.values[o.name] = ""
		case explicit:
			a.values[o.name] = value
		case i+1 == len(args) || looksLikeOption(args[i+1]):
			return a, usageError(fmt.Sprintf("argument --%s: expected one argument", o.name))
		default:
			i++
			a.values[o.name] = args[i]
		}
	}
	switch {
	case !given:
		return a, usageError("the following arguments are required: command")
	case len(unknown) > 0:
		return a, usageError("unrecognized arguments: " + strings.Join(unknown, " "))
	}
	return a, nil
}

// looksLikeOption says whether argparse would not take s for a value.
func looksLikeOption(s string) bool {
	if len(s) < 2 || s[0] != '-' || negativeNumber.MatchString(s) {
		return false
	}
	name, _, _ := strings.Cut(s, "=")
	if o, err := find(name, s); o != nil || err != nil {
		return true
	}
	return !strings.Contains(s, " ")
}

// find gives the option of that name, or the only one that the name begins.
func find(name, arg string) (*option, error) {
	if !strings.HasPrefix(name, "--") || arg == "--" {
		return nil, nil
	}
	all := append([]option{{name: "help", flag: true}}, options...)
	if i := slices.IndexFunc(all, func(o option) bool { return "--"+o.name == name }); i >= 0 {
		return &all[i], nil
	}
	var match []option
	for _, o := range all {
		if strings.HasPrefix("--"+o.name, name) {
			match = append(match, o)
		}
	}
	switch len(match) {
	case 0:
		return nil, nil
	case 1:
		return &match[0], nil
	}
	names := make([]string, len(match))
	for i, o := range match {
		names[i] = "--" + o.name
	}
	return nil, usageError(fmt.Sprintf("ambiguous option: %s could match %s", arg, strings.Join(names, ", ")))
}

// quote is Python's repr of a plain string.
func quote(s string) string {
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		return `"` + s + `"`
	}
	return "'" + strings.ReplaceAll(s, "'", `\'`) + "'"
}

// usage is the one line that argparse prints before an error, unwrapped.
func usage(program string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "usage: %s [-h]", program)
	for _, o := range options {
		if o.flag {
			fmt.Fprintf(&b, " [--%s]", o.name)
		} else {
			fmt.Fprintf(&b, " [--%s %s]", o.name, strings.ToUpper(o.name))
		}
	}
	return b.String() + " command"
}
