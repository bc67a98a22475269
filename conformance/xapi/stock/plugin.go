package stock

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Environment of the plugin: its state folder, XAPI's socket, and whether it is
// the one for Python 3.
const (
	envDir     = "STOCK_VMOPS_DIR"
	envXAPI    = "STOCK_VMOPS_XAPI"
	envPython3 = "STOCK_VMOPS_PYTHON3"
	envOVS     = "STOCK_VMOPS_OVS"
)

// Options of the model.
type Options struct {
	Dir     string // state folder
	Socket  string // XAPI's
	Python3 bool   // the plugin of XCP-ng 8.3 and XenServer 8.4
	OVS     bool   // the host uses Open vSwitch
}

// Environ is the environment for xapi.Host.Env.
func (o Options) Environ() []string {
	env := []string{envDir + "=" + o.Dir, envXAPI + "=" + o.Socket}
	if o.Python3 {
		env = append(env, envPython3+"=1")
	}
	if o.OVS {
		env = append(env, envOVS+"=1")
	}
	return env
}

// Enabled says whether this process was started as the plugin.
func Enabled() bool { return os.Getenv(envDir) != "" }

// failure is an exception of the plugin.
type failure struct{ class, text string }

func (f failure) Error() string { return f.text }

// nothing is a function that returns no value: it cannot be encoded (R17).
var nothing = failure{"<type 'exceptions.TypeError'>", "cannot marshal None unless allow_none is enabled"}

// Main runs the plugin; it gives the exit status.
func Main() int {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "Incorrect number of commandline arguments")
		return 1
	}
	c, err := parse(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "xml.parsers.expat.ExpatError:", err)
		return 1
	}
	dir := os.Getenv(envDir)
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err == nil {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
	}
	var s *State
	if err == nil {
		s, err = Load(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	p := &plugin{State: s, call: c, python3: os.Getenv(envPython3) != ""}
	f, known := functions[c.function]
	if !known {
		fmt.Print(answerFailure("UNKNOWN_XENAPI_PLUGIN_FUNCTION", c.function))
		return 0
	}
	s.Calls[c.function]++
	value, err := f(p)
	if err != nil {
		s.Failures[c.function]++
	}
	if e := s.save(dir); e != nil {
		fmt.Fprintln(os.Stderr, e)
		return 1
	}
	var x failure
	if errors.As(err, &x) {
		fmt.Print(answerFailure("XENAPI_PLUGIN_FAILURE", c.function, x.class, x.text))
		return 0
	} else if err != nil {
		fmt.Print(answerFailure("XENAPI_PLUGIN_FAILURE", c.function, "<class 'XenAPI.Failure'>", err.Error()))
		return 0
	}
	fmt.Print(answerSuccess(value))
	return 0
}

// call is the plugin's argument.
type call struct {
	function, session string
	args              map[string]string
}

func (c call) arg(name string) (string, error) {
	v, ok := c.args[name]
	if !ok {
		return "", failure{"<type 'exceptions.KeyError'>", "'" + name + "'"}
	}
	return v, nil
}

func parse(text string) (c call, err error) {
	type value struct {
		Text    string `xml:",chardata"`
		String  string `xml:"string"`
		Members []struct {
			Name  string `xml:"name"`
			Value struct {
				Text   string `xml:",chardata"`
				String string `xml:"string"`
			} `xml:"value"`
		} `xml:"struct>member"`
	}
	var x struct {
		XMLName xml.Name `xml:"methodCall"`
		Name    string   `xml:"methodName"`
		Params  []value  `xml:"params>param>value"`
	}
	if err := xml.Unmarshal([]byte(text), &x); err != nil {
		return c, err
	}
	if len(x.Params) != 2 {
		return c, fmt.Errorf("%d params", len(x.Params))
	}
	c = call{x.Name, x.Params[0].Text + x.Params[0].String, map[string]string{}}
	for _, m := range x.Params[1].Members {
		c.args[m.Name] = m.Value.Text + m.Value.String
	}
	return c, nil
}

func answerSuccess(v string) string {
	return "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n<value><struct>\n<member>\n<name>Status</name>\n<value><string>Success</string></value>\n</member>\n" +
		"<member>\n<name>Value</name>\n<value><string>" + escape(v) + "</string></value>\n</member>\n</struct></value>\n</param>\n</params>\n</methodResponse>\n\n"
}

func answerFailure(description ...string) string {
	var b strings.Builder
	b.WriteString("<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n<value><struct>\n<member>\n<name>Status</name>\n<value><string>Failure</string></value>\n</member>\n" +
		"<member>\n<name>ErrorDescription</name>\n<value><array><data>\n")
	for _, d := range description {
		b.WriteString("<value><string>" + escape(d) + "</string></value>\n")
	}
	b.WriteString("</data></array></value>\n</member>\n</struct></value>\n</param>\n</params>\n</methodResponse>\n\n")
	return b.String()
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// ask calls XAPI with the session that the plugin was given.
func (c call) ask(method string, out any, params ...any) error {
	body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": append([]any{c.session}, params...)})
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", os.Getenv(envXAPI))
	}}}
	resp, err := client.Post("http://localhost/jsonrpc", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var answer struct {
		Result json.RawMessage
		Error  *struct{ Message string }
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return err
	}
	if answer.Error != nil {
		return fmt.Errorf("%s", answer.Error.Message)
	}
	return json.Unmarshal(answer.Result, out)
}
