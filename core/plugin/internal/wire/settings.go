package wire

import (
	"fmt"
	"math"
	"reflect"
	"strconv"

	"github.com/ringwall/ringwall/core"
	pb "github.com/ringwall/ringwall/core/plugin/proto"
)

// EncodeSettings keeps the Go types that YAML gives, so that a driver sees the
// same settings on both sides of the boundary. Anything else is a FieldError.
func EncodeSettings(s core.Settings) (map[string]*pb.Value, error) {
	if s == nil {
		return nil, nil
	}
	out := make(map[string]*pb.Value, len(s))
	for k, v := range s {
		m, err := encodeValue(k, reflect.ValueOf(v))
		if err != nil {
			return nil, err
		}
		out[k] = m
	}
	return out, nil
}

func encodeValue(path string, v reflect.Value) (*pb.Value, error) {
	switch v.Kind() {
	case reflect.Invalid:
		return &pb.Value{}, nil
	case reflect.Interface, reflect.Pointer:
		return encodeValue(path, v.Elem())
	case reflect.Bool:
		return &pb.Value{Kind: &pb.Value_BoolValue{BoolValue: v.Bool()}}, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return &pb.Value{Kind: &pb.Value_IntValue{IntValue: v.Int()}}, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if v.Uint() > math.MaxInt64 {
			return &pb.Value{Kind: &pb.Value_UintValue{UintValue: v.Uint()}}, nil
		}
		return &pb.Value{Kind: &pb.Value_IntValue{IntValue: int64(v.Uint())}}, nil
	case reflect.Float32, reflect.Float64:
		return &pb.Value{Kind: &pb.Value_FloatValue{FloatValue: v.Float()}}, nil
	case reflect.String:
		return &pb.Value{Kind: &pb.Value_StringValue{StringValue: v.String()}}, nil
	case reflect.Slice, reflect.Array:
		list := &pb.ValueList{}
		for i := range v.Len() {
			m, err := encodeValue(path+"["+strconv.Itoa(i)+"]", v.Index(i))
			if err != nil {
				return nil, err
			}
			list.Values = append(list.Values, m)
		}
		return &pb.Value{Kind: &pb.Value_ListValue{ListValue: list}}, nil
	case reflect.Map:
		table := &pb.ValueMap{Values: make(map[string]*pb.Value, v.Len())}
		for it := v.MapRange(); it.Next(); {
			k := fmt.Sprint(it.Key().Interface())
			m, err := encodeValue(path+"."+k, it.Value())
			if err != nil {
				return nil, err
			}
			table.Values[k] = m
		}
		return &pb.Value{Kind: &pb.Value_MapValue{MapValue: table}}, nil
	}
	return nil, &core.FieldError{Path: path, Value: v.Type().String(), Reason: "not a scalar, a list or a map"}
}

// DecodeSettings gives bool, int, uint64, float64, string, nil, []any and
// map[string]any, as a YAML decoder does.
func DecodeSettings(in map[string]*pb.Value) (core.Settings, error) {
	if in == nil {
		return nil, nil
	}
	out := make(core.Settings, len(in))
	for k, m := range in {
		v, err := decodeValue(m)
		if err != nil {
			return nil, under(k, err)
		}
		out[k] = v
	}
	return out, nil
}

func decodeValue(m *pb.Value) (any, error) {
	switch v := m.GetKind().(type) {
	case nil:
		return nil, known(m)
	case *pb.Value_BoolValue:
		return v.BoolValue, nil
	case *pb.Value_IntValue:
		return int(v.IntValue), nil
	case *pb.Value_UintValue:
		return v.UintValue, nil
	case *pb.Value_FloatValue:
		return v.FloatValue, nil
	case *pb.Value_StringValue:
		return v.StringValue, nil
	case *pb.Value_ListValue:
		out := make([]any, len(v.ListValue.GetValues()))
		for i, e := range v.ListValue.GetValues() {
			x, err := decodeValue(e)
			if err != nil {
				return nil, under(index(i), err)
			}
			out[i] = x
		}
		return out, nil
	case *pb.Value_MapValue:
		out := make(map[string]any, len(v.MapValue.GetValues()))
		for k, e := range v.MapValue.GetValues() {
			x, err := decodeValue(e)
			if err != nil {
				return nil, under(k, err)
			}
			out[k] = x
		}
		return out, nil
	}
	return nil, malformed("", "a value of a kind that this release does not know")
}
