package fuzzcorpus

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestArgument(t *testing.T) {
	for line, want := range map[string]any{
		`string("a\x00\"")`: "a\x00\"", `[]byte("\xff")`: []byte("\xff"), "int(7)": 7, "int(-7)": -7,
		`byte('\x00')`: byte(0), `byte('\u00ff')`: byte(255), `byte('"')`: byte('"'), "bool(true)": true,
	} {
		if got, err := argument(line); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %#v, %v", line, got, err)
		}
	}
	for _, line := range []string{"", "x", `string(x)`, `string("a", "b")`, "byte('\u0100')", "uint16(7)", `rune('a')`, `f("`} {
		if got, err := argument(line); err == nil {
			t.Errorf("%q is %#v", line, got)
		}
	}
}

// What Go has kept in files of its own comes back, the longest left out.
func TestPack(t *testing.T) {
	dir, to := t.TempDir(), filepath.Join(t.TempDir(), "out", "FuzzX.txt")
	long := strings.Repeat("x", maxBytes)
	for name, text := range map[string]string{
		"1": header + "string(\"two\")\nint(2)\n", "2": header + "string(\"1\")\nint(1)\n", "3": header + "string(\"" + long + "\")\nint(3)\n", "4": "something else\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second time all is there
		if err := Pack(dir, to); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(to)
	if want := header + "string(\"1\")\nint(1)\n" + header + "string(\"two\")\nint(2)\n"; err != nil || string(b) != want {
		t.Errorf("%q, %v", b, err)
	}
	for i, entry := range strings.Split(string(b), header)[1:] {
		args, err := parse(entry)
		if want := [][]any{{"1", 1}, {"two", 2}}[i]; err != nil || !reflect.DeepEqual(args, want) {
			t.Errorf("%v, %v", args, err)
		}
	}
}
