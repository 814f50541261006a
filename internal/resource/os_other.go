//go:build !linux

package resource

import "errors"

// Hosts run Linux; elsewhere the package only says what kinds there are.

func swap(string, string) error { return errors.ErrUnsupported }

func syncAll(string) error { return errors.ErrUnsupported }

func setHostname(string) error { return errors.ErrUnsupported }
