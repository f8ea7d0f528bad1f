package main

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// schemaDefaults says what holds for keys that are left out, where defaultConfig cannot say it: values of list entries, and
// those that follow from something else. By the paths of schemaText; - for what must be there or has no meaning when it is not.
var schemaDefaults = map[string]string{
	"credentials.cloud":          "global",
	"credentials.signature":      "PS256",
	"credentials.token_key_file": "tokens/key in the state folder",
	"logins.allow":               "[smtp, imap]",
	"logins.fallback_from":       "the mailbox's address",
	"logins.networks":            "anywhere",
	"logins.rate":                "smtp.rate",
	"logins.gather":              "smtp.gather",
	"logins.save_to_sent":        "true",
	"listeners.tls":              "none",
	"listeners.profile":          "modern",
	"listeners.fallback_from":    "the mailbox's address",
	"listeners.save_to_sent":     "true",
	"listeners.tls_min":          "1.2",
	"smtp.rate":                  "no limit",
	"sendmail.drop":              "drop in the state folder",
	"sendmail.fallback_from":     "the mailbox's address",
	"sendmail.save_to_sent":      "true",
}

// configKey is one line of the reference of the configuration file.
type configKey struct {
	Path, Type, Default, Text string
	Values                    []string
}

// configKeys lists every key in the order of the file, sections before what is in them.
func configKeys() []configKey {
	return keysOf(reflect.ValueOf(defaultConfig()), "")
}

func keysOf(v reflect.Value, path string) (out []configKey) {
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("yaml")
		if key == "" {
			continue
		}
		f, p := v.Field(i), strings.TrimPrefix(path+"."+key, ".")
		k := configKey{Path: p, Type: typeName(f.Type()), Text: schemaText[p], Values: schemaEnums[p]}
		var more []configKey
		switch t := f.Type(); {
		case t.Kind() == reflect.Struct && k.Type == "section":
			more = keysOf(f, p)
		case (t.Kind() == reflect.Slice || t.Kind() == reflect.Map) && t.Elem().Kind() == reflect.Struct && typeName(t.Elem()) == "section":
			more = keysOf(reflect.New(t.Elem()).Elem(), p)
		default:
			k.Default = defaultOf(f, p)
		}
		out = append(append(out, k), more...)
	}
	return out
}

func defaultOf(v reflect.Value, path string) string {
	if s, ok := schemaDefaults[path]; ok {
		return s
	}
	switch x := v.Interface().(type) {
	case time.Duration:
		return shortDuration(x)
	case byteSize:
		if x == 0 {
			return ""
		}
		return x.String()
	case bool:
		return fmt.Sprint(x)
	case int:
		if x == 0 {
			return ""
		}
		return fmt.Sprint(x)
	case string:
		return x
	}
	return ""
}

// typeName says in a word what is to be written.
func typeName(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[byteSize]():
		return "size"
	case reflect.TypeFor[unlessFalse]():
		return "true or false"
	}
	switch t.Kind() {
	case reflect.Struct:
		if t.PkgPath() == "net/netip" {
			return "network"
		}
		return "section"
	case reflect.Map:
		return "named " + typeName(t.Elem()) + "s"
	case reflect.Slice:
		return "list of " + typeName(t.Elem()) + "s"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "number"
	}
	return "text"
}
