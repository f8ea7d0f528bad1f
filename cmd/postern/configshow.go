package main

import (
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// secretKeys are those whose values config show does not print.
var secretKeys = map[string]bool{"client_secret": true, "certificate_password": true, "password_hash": true, "token": true}

const masked = "(hidden)"

func configShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show [FILE]",
		Short: "Print the configuration that holds, defaults filled in and secrets hidden",
		Args:  wants(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := configPath(cmd, args)
			if err != nil {
				return err
			}
			c, err := readConfig(path, os.LookupEnv)
			if err != nil {
				return err
			}
			return showConfig(cmd.OutOrStdout(), c)
		},
	}
	addConfigFlag(cmd)
	return cmd
}

// showConfig writes c as YAML that the decoder reads back, but for what is hidden.
func showConfig(w io.Writer, c *configFile) error {
	var b strings.Builder
	conf := c.config
	conf.Listeners = slices.Clone(conf.Listeners)
	for i := range conf.Listeners {
		if conf.Listeners[i].Protocol != "smtp" {
			conf.Listeners[i].Profile = "" // filled in for all, but others may not name it
		}
	}
	writeStruct(&b, reflect.ValueOf(conf), "")
	_, err := io.WriteString(w, b.String())
	return err
}

func writeStruct(b *strings.Builder, v reflect.Value, indent string) {
	for i := range v.NumField() {
		key, f := v.Type().Field(i).Tag.Get("yaml"), v.Field(i)
		if key == "" || f.IsZero() && f.Kind() != reflect.Bool || f.Kind() == reflect.Bool && !f.Bool() {
			continue
		}
		if secretKeys[key] {
			if fileKeySet(v, key+"_file") {
				continue // it came from there
			}
			fmt.Fprintf(b, "%s%s: %s\n", indent, key, quote(masked))
			continue
		}
		writeValue(b, key, f, indent)
	}
}

// fileKeySet reports whether the key that names a file for a secret has a value.
func fileKeySet(v reflect.Value, key string) bool {
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("yaml") == key {
			return !v.Field(i).IsZero()
		}
	}
	return false
}

func writeValue(b *strings.Builder, key string, v reflect.Value, indent string) {
	if s, ok := showScalar(v); ok {
		fmt.Fprintf(b, "%s%s: %s\n", indent, key, s)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		fmt.Fprintf(b, "%s%s:\n", indent, key)
		writeStruct(b, v, indent+"  ")
	case reflect.Map:
		fmt.Fprintf(b, "%s%s:\n", indent, key)
		m := map[string]reflect.Value{}
		for _, k := range v.MapKeys() {
			m[k.String()] = v.MapIndex(k)
		}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			writeValue(b, quote(k), m[k], indent+"  ")
		}
	case reflect.Slice:
		if v.Len() > 0 {
			if _, ok := showScalar(v.Index(0)); ok {
				items := make([]string, v.Len())
				for i := range items {
					items[i], _ = showScalar(v.Index(i))
				}
				fmt.Fprintf(b, "%s%s: [%s]\n", indent, key, strings.Join(items, ", "))
				return
			}
		}
		fmt.Fprintf(b, "%s%s:\n", indent, key)
		for i := range v.Len() {
			var item strings.Builder
			writeStruct(&item, v.Index(i), indent+"    ")
			text := item.String()
			b.WriteString(indent + "  - " + strings.TrimPrefix(text, indent+"    "))
		}
	}
}

// showScalar writes a single value as YAML.
func showScalar(v reflect.Value) (string, bool) {
	switch x := v.Interface().(type) {
	case time.Duration:
		return shortDuration(x), true
	case byteSize:
		return x.String(), true
	case netip.Prefix:
		return quote(x.String()), true
	}
	switch v.Kind() {
	case reflect.String:
		return quote(v.String()), true
	case reflect.Bool:
		return strconv.FormatBool(v.Bool()), true
	case reflect.Int, reflect.Int64:
		return strconv.FormatInt(v.Int(), 10), true
	}
	return "", false
}

// shortDuration writes 48h and not 48h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	s = strings.TrimSuffix(s, "m0s")
	if s != d.String() {
		s += "m"
	}
	if t := strings.TrimSuffix(s, "h0m"); t != s {
		s = t + "h"
	}
	return s
}
