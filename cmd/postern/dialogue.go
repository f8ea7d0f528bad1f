package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// dialogue asks a person.
type dialogue struct {
	in  *bufio.Reader
	out io.Writer
	tty *os.File // nil: answers come from somewhere else, nothing is hidden
	ask bool
}

func (d *dialogue) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

// errEnd is the cause when the person leaves.
var errEnd = errors.New("setup was ended; nothing has been written")

// optional is the default of questions that may stay without an answer.
const optional = " "

// line asks for one line. Without a dialogue the answer is the default, and an error names the flag when there is none.
func (d *dialogue) line(question, flag, def string) (string, error) {
	if !d.ask {
		if def == optional {
			return "", nil
		}
		if def == "" {
			return "", fmt.Errorf("--%s is missing: %s", flag, question)
		}
		return def, nil
	}
	if def != "" && def != optional {
		fmt.Fprintf(d.out, "%s [%s]: ", question, def)
	} else {
		fmt.Fprintf(d.out, "%s: ", question)
	}
	s, err := d.in.ReadString('\n')
	if err != nil && (s == "" || err != io.EOF) {
		fmt.Fprintln(d.out)
		return "", errEnd
	}
	if s = strings.TrimSpace(s); s == "" {
		s = strings.TrimSpace(def)
	}
	return s, nil
}

// must is line until there is an answer.
func (d *dialogue) must(question, flag, def string) (string, error) {
	for {
		s, err := d.line(question, flag, def)
		if s != "" || err != nil {
			return s, err
		}
	}
}

// secret asks for something that is not shown.
func (d *dialogue) secret(question, flag string) (string, error) {
	if d.tty == nil || !d.ask {
		return d.must(question, flag, "")
	}
	for {
		fmt.Fprintf(d.out, "%s (not shown): ", question)
		b, err := term.ReadPassword(int(d.tty.Fd()))
		fmt.Fprintln(d.out)
		if err != nil {
			return "", errEnd
		}
		if s := strings.TrimSpace(string(b)); s != "" {
			return s, nil
		}
	}
}

// choose asks for one of several words, shown with what they mean.
func (d *dialogue) choose(question, flag, def string, options [][2]string) (string, error) {
	if d.ask {
		for i, o := range options {
			d.say("  %d  %-17s %s", i+1, o[0], o[1])
		}
	}
	for {
		s, err := d.line(question, flag, def)
		if err != nil {
			return "", err
		}
		for i, o := range options {
			if s == o[0] || s == fmt.Sprint(i+1) {
				return o[0], nil
			}
		}
		if !d.ask {
			return "", fmt.Errorf("--%s %q is unknown", flag, s)
		}
		d.say("Please write one of the words or numbers above.")
	}
}

// yes asks a question of yes or no.
func (d *dialogue) yes(question string, def bool) (bool, error) {
	if !d.ask {
		return def, nil
	}
	word := "y/N"
	if def {
		word = "Y/n"
	}
	for {
		s, err := d.line(question+" ("+word+")", "", "")
		if err != nil {
			return false, err
		}
		switch strings.ToLower(s) {
		case "":
			return def, nil
		case "y", "yes":
			return true, nil
		case "n", "no":
			return false, nil
		}
	}
}

// askID asks until check, which returns what is wrong, is content.
func (d *dialogue) askID(question, flag string, check func(string) string) (string, error) {
	for {
		id, err := d.must(question, flag, "")
		if err != nil {
			return "", err
		}
		text := check(id)
		if text == "" || id == "-" {
			return id, nil
		}
		d.say("%s", text)
	}
}
