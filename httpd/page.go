package httpd

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"

	"postern/backend"
)

//go:embed pages
var files embed.FS

// page is what an administrator may ask for by GET.
type page struct {
	name  string // of its template
	place string // the entry of the navigation it belongs to
	live  []string
	// data returns the title and what the templates show. Its error becomes the answer.
	data func(s *Server, r *http.Request) (title string, data any, err error)
}

// pages are all pages by pattern. live names the templates within a page that are sent anew as they change; each
// is shown in an element with that id.
var pages = map[string]*page{
	"/{$}":                 {"overview", "overview", []string{"overview-live"}, (*Server).overview},
	"/mailboxes":           {"mailboxes", "overview", []string{"mailboxes-live"}, (*Server).mailboxes},
	"/mailboxes/{address}": {"mailbox", "overview", []string{"mailbox-live", "mailbox-folders"}, (*Server).mailbox},
	"/queue":               {"queue", "queue", []string{"queue-summary", "queue-rows"}, (*Server).queue},
	"/queue/{id}":          {"message", "queue", []string{"message-live"}, (*Server).message},
	"/logins":              {"logins", "logins", []string{"logins-live"}, (*Server).logins},
	"/clients":             {"clients", "clients", nil, (*Server).clients},
	"/checks":              {"checks", "checks", []string{"checks-live"}, (*Server).checks},
}

// view is what a page's templates see.
type view struct {
	Title string
	Place string
	User  string // who is signed in; "" on the sign-in page
	Form  string // the token for forms
	Flash *flash
	Live  string // the address for events; "" for a page without
	Data  any
}

// errNoPage is answered with 404.
var errNoPage = errors.New("there is no such page")

// page answers with a whole page.
func (s *Server) page(p *page) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := s.view(p, r)
		if err != nil {
			s.pageError(w, r, err)
			return
		}
		v.Flash = sessionOf(r.Context()).said()
		s.render(w, http.StatusOK, p.name, v)
	}
}

func (s *Server) view(p *page, r *http.Request) (view, error) {
	title, data, err := p.data(s, r)
	if err != nil {
		return view{}, err
	}
	ses := sessionOf(r.Context())
	v := view{Title: title, Place: p.place, User: ses.login.Username, Form: ses.form, Data: data}
	if len(p.live) > 0 {
		v.Live = "/events?of=" + url.QueryEscape(r.URL.RequestURI())
	}
	return v, nil
}

func (s *Server) pageError(w http.ResponseWriter, r *http.Request, err error) {
	status, text := http.StatusInternalServerError, "This page could not be made; the log says why."
	switch {
	case errors.Is(err, errNoPage), backend.KindOf(err) == backend.NotFound:
		status, text = http.StatusNotFound, "There is nothing of this name here."
	case r.Context().Err() != nil:
		return // the browser has gone
	default:
		s.log.Error("page", "op", r.URL.Path, "err", err)
	}
	v := view{Title: "Not here", Data: text}
	if ses := sessionOf(r.Context()); ses != nil {
		v.User, v.Form = ses.login.Username, ses.form
	}
	s.render(w, status, "error", v)
}

// render writes a whole page.
func (s *Server) render(w http.ResponseWriter, status int, name string, v view) {
	var b bytes.Buffer
	if err := templates[name].ExecuteTemplate(&b, "layout", v); err != nil {
		s.log.Error("page", "op", name, "err", err)
		http.Error(w, "this page could not be made; the log says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(harmless(b.Bytes())) // nobody to tell
}

// templates holds one set for each page: the layout with the page's own parts.
var templates = func() map[string]*template.Template {
	out := make(map[string]*template.Template)
	names, err := fs.Glob(files, "pages/*.html")
	if err != nil {
		panic(err)
	}
	for _, n := range names {
		name := strings.TrimSuffix(path.Base(n), ".html")
		if name == "layout" || name == "parts" {
			continue
		}
		out[name] = template.Must(template.New(name).Funcs(functions).ParseFS(files, "pages/layout.html", "pages/parts.html", n))
	}
	return out
}()

// asset is a file browsers may keep: its address changes with its content.
type asset struct {
	content []byte
	kind    string
	version string
}

var assets = func() map[string]asset {
	out := make(map[string]asset)
	for name, kind := range map[string]string{"style.css": "text/css; charset=utf-8", "live.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"} {
		b, err := files.ReadFile("pages/" + name)
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(b)
		out[name] = asset{b, kind, hex.EncodeToString(sum[:6])}
	}
	return out
}()

func (s *Server) asset(w http.ResponseWriter, r *http.Request) {
	a, ok := assets[r.PathValue("name")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", a.kind)
	if r.URL.Query().Get("v") == a.version {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	_, _ = w.Write(a.content) // nobody to tell
}
