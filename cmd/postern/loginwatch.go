package main

import (
	"context"
	"os"
	"path/filepath"
	"time"
)

// watchReload sends on hup whenever a command has asked for the configuration to be read again, until ctx ends.
func watchReload(ctx context.Context, dir string, hup chan<- os.Signal) {
	name := filepath.Join(dir, reloadFile)
	modified := func() time.Time {
		info, err := os.Stat(name)
		if err != nil {
			return time.Time{}
		}
		return info.ModTime()
	}
	last := modified()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if t := modified(); !t.Equal(last) {
			last = t
			select {
			case hup <- reloadRequest{}:
			case <-ctx.Done():
				return
			}
		}
	}
}

// reloadRequest is a command's wish, beside the signal that means the same.
type reloadRequest struct{}

func (reloadRequest) String() string { return "a command" }
func (reloadRequest) Signal()        {}
