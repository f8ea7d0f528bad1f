//go:build !linux && !darwin && !windows

package main

import "errors"

func defaultServiceConfig() string { return "/usr/local/etc/postern/postern.yaml" }

var errNoServices = errors.New("services are not made on this system: let its own manager run postern serve")

func (s *service) install() error   { return errNoServices }
func (s *service) uninstall() error { return errNoServices }
func (s *service) start() error     { return errNoServices }
func (s *service) stop() error      { return errNoServices }
func (s *service) status() error    { return errNoServices }
