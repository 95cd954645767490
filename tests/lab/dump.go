package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Dump gathers what a person needs to understand a failure from the log alone:
// the timeline, the cluster's view, each machine's journal and console.
func (l *Lab) Dump(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	var b strings.Builder
	section := func(title, text string) {
		fmt.Fprintf(&b, "\n===== %s\n%s\n", title, strings.TrimRight(text, "\n"))
	}
	section("timeline", l.Timeline.String())
	// The machines are asked before their files are read: the answers are in
	// the journals then.
	asked := make([]string, len(l.Machines))
	_ = l.each(func(m *Machine) error {
		asked[m.index] = m.look(ctx)
		return nil
	})
	for i, m := range l.Machines {
		section(m.Name+": state", asked[i])
		section(m.Name+": journal (end)", m.JournalTail(120))
		section(m.Name+": console (end)", m.consoleTail(25))
	}
	return b.String()
}

// look asks a machine for everything that is worth knowing after a failure.
func (m *Machine) look(ctx context.Context) string {
	if !m.On() {
		return "powered off"
	}
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	out, err := m.Run(ctx, `
date -Is
ip -brief address; ip neigh
grep -v '^ *$' /proc/drbd 2>/dev/null
grep -E ' (nfs|nfs4|ext4|xfs|fuse\S*) ' /proc/mounts
if systemctl -q is-active pacemaker; then
	timeout 20 crm_mon -1rfA
	timeout 30 crm configure show
	corosync-cfgtool -s
fi
tail -n 60 /var/log/ha-log 2>/dev/null
systemctl --failed --no-legend --plain
ps -eo pid,ppid,stat,wchan:20,etimes,args --sort=pid | grep -vE '\[.*\]$' | tail -n 60
true`)
	if err != nil {
		return fmt.Sprintf("%s\n(%v)", out, err)
	}
	return out
}

// JournalTail is the end of the machine's journal as the host has it, also
// when the machine is dead. The whole journal of the disk is behind
// journalctl in the machine.
func (m *Machine) JournalTail(lines int) string {
	return tailFile(filepath.Join(m.dir, "journal"), lines)
}

// Journal is the machine's journal as the host has it, from the moment the lab
// was started.
func (m *Machine) Journal() string {
	text, err := os.ReadFile(filepath.Join(m.dir, "journal"))
	if err != nil {
		return ""
	}
	return clean(string(text))
}

func (m *Machine) consoleTail(lines int) string {
	return tailFile(filepath.Join(m.dir, "console"), lines)
}

func tailFile(path string, lines int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(clean(string(text)), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(all, "\n")
}

// clean drops what a terminal would have swallowed.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\r' || (r < ' ' && r != '\n' && r != '\t') {
			return -1
		}
		return r
	}, s)
}
