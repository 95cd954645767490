package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Crm loads a file below crm-examples, such as "vip/vip.crm", into the cluster.
func (l *Lab) Crm(ctx context.Context, example string) error {
	text, err := Example(example)
	if err != nil {
		return err
	}
	l.Timeline.Add("cluster: load %s", example)
	return l.CrmText(ctx, text)
}

// CrmText loads a configuration in crm's language into the cluster.
//
// crm needs 7 to 25 s for it under emulation, nearly all of them spent in
// starting Python. So what crm made of a text on top of a certain
// configuration is kept in the cache, and the same text on top of the same
// configuration goes straight to cibadmin after that. LAB_CRM=always asks crm
// each time.
func (l *Lab) CrmText(ctx context.Context, text string) error {
	before, err := l.N1.Run(ctx, "cibadmin -Q -o configuration")
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(l.image.Key + "\x00" + before + "\x00" + text))
	known := filepath.Join(Cache(), "crm-"+hex.EncodeToString(sum[:8])+".xml")
	if after, err := os.ReadFile(known); err == nil && os.Getenv("LAB_CRM") != "always" {
		used(known)
		_, err := l.N1.Exec(ctx, strings.NewReader(string(after)), "cibadmin --replace -o configuration --xml-pipe")
		return err
	}

	result, err := l.N1.Exec(ctx, strings.NewReader(text), "cat >/root/load.crm && crm -F configure load update /root/load.crm")
	if err != nil {
		return err
	}
	// crm reports some mistakes and ends with 0 all the same.
	if said := result.Stdout + result.Stderr; strings.Contains(said, "ERROR") {
		return fmt.Errorf("lab: crm configure load: %s", said)
	}
	after, err := l.N1.Run(ctx, "cibadmin -Q -o configuration")
	if err != nil {
		return err
	}
	return keep(known, after)
}

// keep writes a file of the cache in one step: other runs may read it.
func keep(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "run-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
