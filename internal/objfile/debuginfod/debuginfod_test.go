package debuginfod

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ferrotrace/internal/objfile"
)

// program compiles a file with a build id of its own.
func program(t *testing.T, id string) (path string, buildID []byte) {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("skipped: needs a C compiler")
	}
	dir := t.TempDir()
	src := filepath.Join(dir, "a.c")
	if err := os.WriteFile(src, []byte("int main(void) { return 0; }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "a")
	if out, err := exec.Command(cc, "-g", "-Wl,--build-id=0x"+id, "-o", path, src).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := objfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return path, append([]byte(nil), f.BuildID()...)
}

const id = "0123456789abcdef0123"

// serve answers with what handle does, and counts the requests.
func serve(t *testing.T, handle http.HandlerFunc) (c *Client, asked *atomic.Int32) {
	asked = &atomic.Int32{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path != "/x/buildid/"+id+"/debuginfo" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		handle(w, r)
	}))
	t.Cleanup(s.Close)
	t.Setenv("DEBUGINFOD_URLS", "ima:ignore "+s.URL+"/x/")
	t.Setenv("DEBUGINFOD_CACHE_PATH", filepath.Join(t.TempDir(), "cache"))
	return FromEnv(), asked
}

func TestFetch(t *testing.T) {
	path, buildID := program(t, id)
	c, asked := serve(t, func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) })
	told := int64(0)
	c.Progress = func(server string, done, total int64) {
		if told = total; server != c.Servers[0] || done <= 0 || done > total {
			t.Errorf("%d of %d from %s", done, total, server)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := c.DebugInfo(context.Background(), buildID)
		if err != nil || got != filepath.Join(c.Cache, id, "debuginfo") {
			t.Fatalf("%q, %v", got, err)
		}
		if b, err := os.ReadFile(got); err != nil || string(b) != string(want) {
			t.Fatalf("%d bytes of %d, %v", len(b), len(want), err)
		}
	}
	if told != int64(len(want)) {
		t.Errorf("told of %d bytes of %d", told, len(want))
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("%d requests for one file", n)
	}
	// What is damaged in the cache is fetched again.
	if err := os.WriteFile(filepath.Join(c.Cache, id, "debuginfo"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := c.DebugInfo(context.Background(), buildID); got == "" || err != nil || asked.Load() != 2 {
		t.Errorf("%q, %v after %d requests", got, err, asked.Load())
	}
	only(t, c, "debuginfo")
}

// only fails if the cache has other files for the build id than names.
func only(t *testing.T, c *Client, names ...string) {
	t.Helper()
	entries, _ := os.ReadDir(filepath.Join(c.Cache, id))
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("the cache holds %q", got)
	}
}

func TestRefused(t *testing.T) {
	other, _ := program(t, "ffff456789abcdef0123")
	path, buildID := program(t, id)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		handle http.HandlerFunc
		err    string // "": silently nothing
	}{
		{"not there", http.NotFound, ""},
		{"broken server", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusBadGateway) }, "502"},
		{"another build", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, other) }, "another build id"},
		{"no ELF file", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("<html>welcome to the café</html>")) }, "not an ELF file"},
		{"cut short", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000000")
			w.Write(whole[:100])
		}, "unexpected EOF"},
		{"cut short unannounced", func(w http.ResponseWriter, r *http.Request) { w.Write(whole[:len(whole)/2]) }, "truncated"},
		{"stalls", func(w http.ResponseWriter, r *http.Request) {
			w.Write(whole[:100])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, "nothing came"},
		{"too large", func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush() // no Content-Length
			for range 300 {
				w.Write(make([]byte, 1<<20))
			}
		}, "more than"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, _ := serve(t, test.handle)
			if test.name == "stalls" {
				c.Timeout = 100 * time.Millisecond
			}
			c.MaxSize = 200 << 20
			got, err := c.DebugInfo(context.Background(), buildID)
			if got != "" || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("%q, %v; want an error with %q", got, err, test.err)
			}
			only(t, c)
		})
	}
}

func TestSecondServer(t *testing.T) {
	path, buildID := program(t, id)
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) })
	dead := httptest.NewServer(nil)
	dead.Close()
	c.Servers = append([]string{dead.URL}, c.Servers...)
	if got, err := c.DebugInfo(context.Background(), buildID); got == "" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestCancelled(t *testing.T) {
	_, buildID := program(t, id)
	ctx, cancel := context.WithCancel(context.Background())
	c, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	if _, err := c.DebugInfo(ctx, buildID); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestOff(t *testing.T) {
	t.Setenv("DEBUGINFOD_URLS", " ")
	if c := FromEnv(); c != nil {
		t.Errorf("%+v", c)
	}
	t.Setenv("DEBUGINFOD_URLS", "https://a https://b/")
	t.Setenv("DEBUGINFOD_CACHE_PATH", "")
	t.Setenv("XDG_CACHE_HOME", "/cache")
	t.Setenv("DEBUGINFOD_TIMEOUT", "7")
	c := FromEnv()
	if c == nil || len(c.Servers) != 2 || c.Cache != "/cache/debuginfod_client" || c.Timeout != 7*time.Second {
		t.Errorf("%+v", c)
	}
}
