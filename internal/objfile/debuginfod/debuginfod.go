// Package debuginfod gets files of debug information from debuginfod servers by build id,
// and keeps them where elfutils' own client does, with the same layout: what one of them
// has fetched the other finds (debuginfod-client-config(7)).
//
// It is off unless the user names servers. What comes from them is foreign: it is taken
// only if its build id is the one that was asked for.
package debuginfod

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"ferrotrace/internal/objfile"
)

// Client fetches from servers into a cache.
type Client struct {
	Servers []string      // base URLs, in the order in which they are asked
	Cache   string        // directory, made when it is needed
	Timeout time.Duration // for which a server may send nothing
	MaxSize int64         // bytes of one file
	// Progress is told of each megabyte or so that came, total being 0 if the server does
	// not say; nil if nobody wants to know.
	Progress func(server string, done, total int64)
}

const (
	// elfutils' default, in seconds.
	defaultTimeout = 90
	// Debug info of the largest programs is some gigabytes; a disk is not to be filled
	// because a server never ends.
	defaultMaxSize = 16 << 30
)

// FromEnv is the client that the environment asks for: DEBUGINFOD_URLS, without which it
// is nil, DEBUGINFOD_CACHE_PATH, DEBUGINFOD_TIMEOUT and DEBUGINFOD_MAXSIZE.
func FromEnv() *Client {
	c := &Client{Timeout: defaultTimeout * time.Second, MaxSize: defaultMaxSize}
	for _, url := range strings.Fields(os.Getenv("DEBUGINFOD_URLS")) {
		// Words such as ima:enforcing set policies for the servers after them; signatures
		// of files are not asked for here.
		if strings.HasPrefix(url, "http://") || strings.HasPrefix(url, "https://") {
			c.Servers = append(c.Servers, strings.TrimRight(url, "/"))
		}
	}
	if len(c.Servers) == 0 {
		return nil
	}
	c.Cache = os.Getenv("DEBUGINFOD_CACHE_PATH")
	if c.Cache == "" {
		if dir, err := os.UserCacheDir(); err == nil { // XDG_CACHE_HOME or ~/.cache
			c.Cache = filepath.Join(dir, "debuginfod_client")
		}
	}
	if n, err := strconv.ParseUint(os.Getenv("DEBUGINFOD_TIMEOUT"), 10, 31); err == nil && n > 0 {
		c.Timeout = time.Duration(n) * time.Second
	}
	if n, err := strconv.ParseInt(os.Getenv("DEBUGINFOD_MAXSIZE"), 10, 64); err == nil && n > 0 {
		c.MaxSize = n
	}
	return c
}

var errNotFound = errors.New("not found")

// DebugInfo returns the path of the file of debug information with a build id, "" if no
// server has it. The error is of those that could not say.
func (c *Client) DebugInfo(ctx context.Context, buildID []byte) (string, error) {
	// Two characters would do for a path of another file in the cache; real ones have 8 to
	// 20 bytes.
	if len(buildID) < 2 || len(buildID) > 64 || c.Cache == "" {
		return "", nil
	}
	id := hex.EncodeToString(buildID)
	path := filepath.Join(c.Cache, id, "debuginfo")
	if has(path, buildID) == nil {
		return path, nil
	}
	var errs []error
	for _, server := range c.Servers {
		err := c.fetch(ctx, server, path, buildID)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, errNotFound) {
			errs = append(errs, fmt.Errorf("debuginfod server %s: %w", server, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return "", errors.Join(errs...)
}

// has returns nil if the file at path is whole, as far as its headers tell, and has the
// build id.
func has(path string, buildID []byte) error {
	f, err := objfile.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if !bytes.Equal(f.BuildID(), buildID) {
		return errors.New("what it sent has another build id")
	}
	return nil
}

// fetch brings a server's file to path, whole or not at all: others may read and write
// there at the same time.
func (c *Client) fetch(ctx context.Context, server, path string, buildID []byte) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(c.Timeout, func() { cancel(fmt.Errorf("nothing came for %v", c.Timeout)) })
	defer stalled.Stop()
	defer func() {
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = cause
		}
	}()
	url := fmt.Sprintf("%s/buildid/%x/debuginfo", server, buildID)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "ferrotrace")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return errNotFound
	case resp.StatusCode != http.StatusOK:
		return errors.New(resp.Status)
	case resp.ContentLength > c.MaxSize:
		return fmt.Errorf("a file of %d bytes, more than DEBUGINFOD_MAXSIZE allows", resp.ContentLength)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, "debuginfo.")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	done, told := int64(0), int64(-1)
	came := func(n int) {
		stalled.Reset(c.Timeout)
		if done += int64(n); c.Progress != nil && done>>20 > told {
			told = done >> 20
			c.Progress(server, done, max(resp.ContentLength, 0))
		}
	}
	n, err := io.Copy(tmp, io.LimitReader(tick{resp.Body, came}, c.MaxSize+1))
	if err == nil && n > c.MaxSize {
		err = fmt.Errorf("a file of more than %d bytes", c.MaxSize)
	}
	// Without this a crash could leave an empty file under the name.
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := has(tmp.Name(), buildID); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// tick reports each read that brought something.
type tick struct {
	io.Reader
	came func(n int)
}

func (t tick) Read(b []byte) (int, error) {
	n, err := t.Reader.Read(b)
	if n > 0 {
		t.came(n)
	}
	return n, err
}
