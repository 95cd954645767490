package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"baton/agents/internal/mfsmeta"
	"baton/ocf"
)

// material is everything that the decision about the metadata depends on.
type material struct {
	// own is the master's data directory, logger that of this node's metalogger, if one is kept.
	own    mfsmeta.Inventory
	logger *mfsmeta.Inventory
	// emergency are files that a dying master of the same file system saved elsewhere; continues says
	// that it was the master that served own last, so that they are one history with it.
	emergency []mfsmeta.Base
	continues bool
	// known is what the cluster has recorded.
	known history
	// initialize and accept are the parameters of these names; initialized says that a file
	// system was made in this directory before.
	initialize, accept, initialized bool
	// failed are bases that mfsmaster could not restore from.
	failed []string
}

// row names the line of the state table that a plan follows.
type row string

const (
	rowEmpty     row = "D6 no metadata"
	rowClean     row = "D1 stopped cleanly"
	rowCrashed   row = "D2 not stopped cleanly"
	rowTorn      row = "D3 torn changelog"
	rowOlderBase row = "D4 older metadata file and changelogs"
	rowBroken    row = "D5 incomplete or contradictory changelogs"
	rowTwoIDs    row = "D7 two file systems"
	rowLeftLogs  row = "D8 metalogger's files in the master's directory"
	rowNewer     row = "D9 changelogs newer than metadata.mfs"
	rowOlder     row = "D10 older than known"
	rowAccess    row = "D11 not usable"
	rowMerge     row = "D12 metalogger is ahead"
	rowEmergency row = "D13 emergency file of a dying master"
)

// refusal is a decision not to start, and what the operator can do about it.
type refusal struct {
	row                 row
	kind                ocf.Kind
	found, expected, do string
}

func (r *refusal) error(dir string) error {
	return &ocf.Error{Kind: r.kind, Object: dir, Found: r.found, Expected: r.expected, Do: r.do}
}

// approach is what recovery would begin with, chosen from names, headers and the ends of files.
// It says which changelogs have to be read to know the rest.
type approach struct {
	// make says that a new file system is to be made.
	make bool
	base mfsmeta.Base
	// logs are to be read; merge says that some of them are the metalogger's.
	logs  []mfsmeta.Log
	merge bool
	// top is the highest id that the master's own files show at their ends.
	top      uint64
	warnings []string
}

// plan is what is to be done before the master is started, in the order of the fields.
type plan struct {
	row      row
	make     bool
	base     mfsmeta.Base
	version  uint64 // the metadata version that the started master must have at least
	metaID   uint64 // 0 if nothing tells
	warnings []string

	trim    []mfsmeta.Tear
	aside   []string      // files to move into the archive
	retire  []string      // emergency files that must not be restored from
	merge   []mfsmeta.Log // the metalogger's changelogs to copy in
	tears   []mfsmeta.Tear
	restore bool
	after   []string // files to move into the archive once the metadata are restored
	// left are those that the master restores from while it starts, where it has no restore of its own.
	left []string
}

const cleanName = "metadata.mfs"

// choose finds the newest usable metadata file and the changelogs that continue it.
func choose(m material) (approach, *refusal) {
	if err := m.own.Unreadable(); err != nil {
		return approach{}, refuseUnreadable(err)
	}
	if r := checkIdentity(m); r != nil {
		return approach{}, r
	}
	ap := approach{}
	for _, b := range candidates(m) {
		if b.Usable() && (ap.base.Path == "" || b.Version > ap.base.Version) {
			ap.base = b
		}
	}
	if ap.base.Path == "" {
		newborn, ok := newborn(m.own)
		if !ok {
			return chooseNothing(m)
		}
		ap.base = newborn
	}
	ap.top = max(ap.base.Version-1, m.own.Last(mfsmeta.Master, mfsmeta.Metalogger, mfsmeta.Download))
	if m.logger != nil {
		warnings, r := considerLogger(m, &ap)
		if r != nil {
			return approach{}, r
		}
		ap.warnings = append(ap.warnings, warnings...)
	}
	from := ap.base.Version
	if ap.merge {
		// Reading from the newest own change on makes sure that there is something to compare.
		from = min(from, ap.top)
		ap.logs = append(ap.logs, mfsmeta.Select(m.logger.Logs, from)...)
	}
	ap.logs = append(ap.logs, mfsmeta.Select(m.own.Logs, from)...)
	return ap, nil
}

// candidates are the metadata files that have not failed yet.
func candidates(m material) []mfsmeta.Base {
	list := m.own.Bases
	if genuine(m) {
		list = slices.Concat(list, m.emergency)
	}
	return slices.DeleteFunc(slices.Clone(list), func(b mfsmeta.Base) bool { return slices.Contains(m.failed, b.Path) })
}

// genuine says that the emergency files are one history with the master's own: they are of the master
// that served last, and no other has saved its metadata since. A version alone proves nothing: the file
// stays on the disk of its node while other nodes go on from what was in the data directory.
func genuine(m material) bool {
	saved, ok := m.own.Base(cleanName)
	return m.continues && (!ok || !saved.Usable())
}

func checkIdentity(m material) *refusal {
	ids := m.own.MetaIDs()
	if len(ids) > 1 {
		return &refusal{
			row: rowTwoIDs, found: fmt.Sprintf("metadata of two file systems (meta ids %016x and %016x)", ids[0], ids[1]),
			expected: "files of one file system",
			do:       "look at them with mfsmetadump -s HEAD FILE and move those that do not belong here out of " + m.own.Dir,
		}
	}
	if len(ids) == 1 && m.known.MetaID != 0 && ids[0] != m.known.MetaID {
		return &refusal{
			row: rowTwoIDs, found: fmt.Sprintf("metadata of another file system (meta id %016x)", ids[0]),
			expected: fmt.Sprintf("meta id %016x, which the cluster knows", m.known.MetaID),
			do:       "check which device is mounted; to take this file system over for good, delete the cluster's record: " + m.known.forget(),
		}
	}
	return nil
}

// newborn finds the first metadata of a new file system that crashed before its first dump: all
// it ever had is "MFSM NEW" and changelogs from id 1 on. Without such a changelog the same file
// is just what the package ships.
func newborn(own mfsmeta.Inventory) (mfsmeta.Base, bool) {
	begun := slices.ContainsFunc(own.Logs, func(l mfsmeta.Log) bool { return l.First == 1 })
	if !begun {
		return mfsmeta.Base{}, false
	}
	// metadata.mfs and metadata.mfs.back are files of a master; metadata.mfs.empty is the package's.
	for _, name := range []string{cleanName, "metadata.mfs.back", "metadata_ml.mfs.back"} {
		if b, ok := own.Base(name); ok && b.Err == nil && b.New {
			return b, true
		}
	}
	return mfsmeta.Base{}, false
}

// chooseNothing decides about a directory without usable metadata.
func chooseNothing(m material) (approach, *refusal) {
	var damaged, trace []string
	for _, b := range m.own.Bases {
		switch {
		case b.Err != nil:
			damaged = append(damaged, b.Name())
		case !b.New:
			trace = append(trace, b.Name())
		}
	}
	for _, l := range m.own.Logs {
		trace = append(trace, l.Name())
	}
	r := &refusal{row: rowEmpty, found: "no metadata", expected: "the metadata of a file system"}
	left := slices.IndexFunc(m.emergency, func(b mfsmeta.Base) bool { return !slices.Contains(m.failed, b.Path) })
	switch {
	case left >= 0:
		b := m.emergency[left]
		r.row = rowEmergency
		r.found = fmt.Sprintf("no usable metadata file here, and nothing shows that %s (version %d) is the newest", b.Path, b.Version)
		r.do = rescueHint(m) + "; if it is the newest: " + takeEmergency(m, b)
	case len(damaged) > 0:
		r.row = rowOlderBase
		r.found = "no usable metadata file: " + strings.Join(damaged, ", ") + " damaged"
		r.do = rescueHint(m)
	case len(trace) > 0:
		r.found = "changelogs or failed metadata files, but no metadata file to apply them to (" + trace[0] + ")"
		r.do = rescueHint(m)
	case m.known.MetaID != 0:
		r.found = "no metadata, but the cluster knows a file system"
		r.expected = m.known.describe()
		r.do = "mount the right device; " + rescueHint(m)
	case m.initialized:
		r.found = "no metadata, although a file system was made here before (" + initializedMark + ")"
		r.do = rescueHint(m) + "; if it never held anything, remove " + filepath.Join(m.own.Dir, initializedMark)
	case m.initialize:
		return approach{make: true}, nil
	default:
		r.do = "check that the right device is mounted; only for a new, empty file system set initialize=true once"
	}
	return approach{}, r
}

// rescueHint tells how to bring in a metalogger's copy by hand.
func rescueHint(m material) string {
	from := "a metalogger's DATA_PATH"
	if m.logger != nil {
		from = m.logger.Dir
	}
	return fmt.Sprintf("copy metadata_ml.mfs.back and changelog_ml*.mfs from %s to %s, or a backup, and clean up the resource", from, m.own.Dir)
}

func refuseUnreadable(err error) *refusal {
	r := &refusal{row: rowAccess, found: err.Error(), expected: "readable regular files"}
	switch {
	case mfsmeta.IsLink(err):
		r.expected, r.do = "no symbolic links among metadata files", "replace the link by the file"
	case errors.Is(err, fs.ErrPermission):
		r.kind, r.do = ocf.NoPermission, "check owner and mode"
	default:
		r.do = "check the disk (dmesg) and the file"
	}
	return r
}

// considerLogger decides whether the metalogger's changelogs have to be read. A metalogger that may be
// ahead is left out only if it follows another file system for sure: a master that is older than it
// makes metaloggers drop what they have.
func considerLogger(m material, ap *approach) (warnings []string, r *refusal) {
	if err := unreadableLog(m.logger.Logs); err != nil {
		r := refuseUnreadable(err)
		if !m.accept {
			r.do += ", so that it can be seen whether the metalogger is ahead; or set older_metadata=accept to go on without it"
			return nil, r
		}
		return []string{fmt.Sprintf("the metalogger's changelogs cannot be read: %v; left out, as older_metadata=accept says", err)}, nil
	}
	if m.logger.Last(mfsmeta.Metalogger, mfsmeta.Download) <= ap.top {
		return nil, nil
	}
	if id, other := ofAnother(*m.logger, ap.base.MetaID); other {
		return []string{fmt.Sprintf("the metalogger's files in %s are of another file system (meta id %016x) and are not looked at", m.logger.Dir, id)}, nil
	}
	ap.merge = true
	return nil, nil
}

// unreadableLog is the error of the first changelog that cannot be read.
func unreadableLog(logs []mfsmeta.Log) error {
	for _, l := range logs {
		if l.Err != nil {
			return l.Err
		}
	}
	return nil
}

// ofAnother says that all metadata files of a directory belong to a file system other than id. One
// that cannot be read may belong to any; whether the changelogs beside it continue ours is then left
// to their comparison, change by change.
func ofAnother(inv mfsmeta.Inventory, id uint64) (other uint64, yes bool) {
	ids := inv.MetaIDs()
	unknown := slices.ContainsFunc(inv.Bases, func(b mfsmeta.Base) bool { return b.Err != nil })
	if id == 0 || len(ids) == 0 || unknown || slices.Contains(ids, id) {
		return 0, false
	}
	return ids[0], true
}

// decide makes the plan from what the changelogs were found to hold.
func decide(m material, ap approach, s mfsmeta.Scan) (plan, *refusal) {
	if ap.make {
		return plan{row: rowEmpty, make: true, version: 1}, nil
	}
	p := plan{base: ap.base, version: s.Next, metaID: ap.base.MetaID, warnings: ap.warnings, restore: true}
	if p.metaID == 0 {
		p.metaID = s.MetaID
	}
	if r := checkHistory(m, ap, s); r != nil {
		return p, r
	}
	if ap.merge && s.Overlap == 0 {
		r := refuseUnproven(m, ap, s)
		if !m.accept {
			return p, r
		}
		p.warnings = append(p.warnings, r.found+"; left out, as older_metadata=accept says")
		p.version, ap.merge = s.Own, false
	}
	for _, b := range m.emergency {
		if genuine(m) || b.Version <= p.version {
			continue
		}
		r := refuseEmergency(m, p, b)
		if !m.accept {
			return p, r
		}
		p.warnings = append(p.warnings, r.found+"; left out, as older_metadata=accept says")
	}
	if p.version < m.known.Version {
		r := refuseOlder(p, m.known)
		if !m.accept {
			return p, r
		}
		p.warnings = append(p.warnings, r.found+"; started all the same, as older_metadata=accept says")
	}
	p.prepare(m, ap, s)
	p.classify(m, s)
	return p, nil
}

func checkHistory(m material, ap approach, s mfsmeta.Scan) *refusal {
	r := &refusal{row: rowBroken, expected: "one history without gaps"}
	switch {
	case s.Fork != nil && ap.merge:
		r.found = fmt.Sprintf("two histories: change %d differs between %s and %s", s.Fork.ID, s.Fork.A, s.Fork.B)
		r.do = fmt.Sprintf("decide which one to keep: to keep the master's, move changelog_ml* out of %s; to keep the metalogger's, see docs/mfs.md, two histories", m.logger.Dir)
	case s.Fork != nil:
		r.found = fmt.Sprintf("two histories: change %d differs between %s and %s", s.Fork.ID, filepath.Base(s.Fork.A), filepath.Base(s.Fork.B))
		r.do = "move the changelogs of the wrong one out of " + m.own.Dir
	case len(s.Damaged) > 0:
		r.found = fmt.Sprintf("unreadable bytes between changes in %s", strings.Join(shown(m, s.Damaged), ", "))
		r.do = "replace it by the same range of a metalogger's changelogs, or move it away to go back to " + goBack(s)
	case len(s.Disordered) > 0:
		r.found = fmt.Sprintf("ids that repeat or go back in %s", strings.Join(shown(m, s.Disordered), ", "))
		r.do = "move the changelogs of another time out of " + filepath.Dir(s.Disordered[0])
	case s.Hole != nil:
		r.found = fmt.Sprintf("%v missing; changelogs go on to %d", s.Hole, s.Highest)
		r.do = fmt.Sprintf("bring them from another metalogger, or move the changelogs with ids above %d away to go back to %s", s.Hole.To, goBack(s))
	default:
		return nil
	}
	return r
}

func goBack(s mfsmeta.Scan) string { return fmt.Sprintf("version %d", s.Next) }

// shown are the files as messages name them: those of the metalogger with their directory.
func shown(m material, paths []string) []string {
	var list []string
	for _, p := range paths {
		if filepath.Dir(p) == m.own.Dir {
			p = filepath.Base(p)
		}
		list = append(list, p)
	}
	return list
}

func refuseUnproven(m material, ap approach, s mfsmeta.Scan) *refusal {
	return &refusal{
		row:      rowMerge,
		found:    fmt.Sprintf("the metalogger in %s has changes up to %d, the master's files end at %d, and no change that both have shows that they are one history", m.logger.Dir, s.Highest, ap.top),
		expected: "at least one common change",
		do:       "copy the metalogger's files by hand if they are newer, or set older_metadata=accept to go on without them",
	}
}

func refuseEmergency(m material, p plan, b mfsmeta.Base) *refusal {
	return &refusal{
		row:      rowEmergency,
		found:    fmt.Sprintf("two histories: %s has version %d, the master's own files %d, and nothing shows that one continues the other", b.Path, b.Version, p.version),
		expected: "an emergency file of the master that served last, or none",
		do: fmt.Sprintf("if a master has served since that file was saved: mv %s /root/; if none has, it holds the newest changes: %s; then clean up the resource",
			b.Path, takeEmergency(m, b)),
	}
}

// takeEmergency is how an operator makes an emergency file the metadata to go on from.
func takeEmergency(m material, b mfsmeta.Base) string {
	return fmt.Sprintf("mkdir /root/kept && mv %[1]s/metadata* %[1]s/changelog* /root/kept/; mv %[2]s %[1]s/metadata.mfs.back", m.own.Dir, b.Path)
}

func refuseOlder(p plan, known history) *refusal {
	return &refusal{
		row:      rowOlder,
		found:    fmt.Sprintf("only version %d can be recovered, %d changes less than the %d known", p.version, known.Version-p.version, known.Version),
		expected: known.describe(),
		do:       "look for the newer copy (other node, metaloggers); to lose the difference for good set older_metadata=accept",
	}
}

// prepare fills in what has to be done to the files.
func (p *plan) prepare(m material, ap approach, s mfsmeta.Scan) {
	for _, t := range s.Tears {
		if filepath.Dir(t.Path) == m.own.Dir {
			p.trim = append(p.trim, t)
		} else {
			p.tears = append(p.tears, t)
		}
	}
	ownLogs := slices.ContainsFunc(m.own.Logs, func(l mfsmeta.Log) bool { return l.Chain != mfsmeta.Master })
	clean := p.base.Name() == cleanName && filepath.Dir(p.base.Path) == m.own.Dir && !p.base.New
	p.restore = !clean || p.version != p.base.Version
	if p.restore {
		for _, b := range m.own.Bases {
			if b.Err != nil || slices.Contains(m.failed, b.Path) {
				p.aside = append(p.aside, b.Path)
			}
		}
		p.aside = append(p.aside, m.own.Unfinished...)
	}
	for _, b := range m.emergency {
		switch {
		case b.Path == p.base.Path:
			p.after = append(p.after, b.Path)
		case !slices.Contains(m.failed, b.Path):
			p.retire = append(p.retire, b.Path)
		}
	}
	if ap.merge {
		p.merge = mfsmeta.Select(m.logger.Logs, s.Own)
	}
	if ownLogs {
		for _, l := range m.own.Logs {
			if l.Chain != mfsmeta.Master {
				p.after = append(p.after, l.Path)
			}
		}
		for _, b := range m.own.Bases {
			if strings.HasPrefix(b.Name(), "metadata_ml") && !slices.Contains(p.aside, b.Path) {
				p.after = append(p.after, b.Path)
			}
		}
	}
}

// classify names the row, the most telling first, and words what the operator should know.
func (p *plan) classify(m material, s mfsmeta.Scan) {
	var cut int64
	for _, t := range p.trim {
		cut += t.Cut()
	}
	if cut > 0 {
		p.warnings = append(p.warnings, fmt.Sprintf("%d bytes behind the last whole change of %s are cut off", cut, tornNames(p.trim)))
	}
	if len(p.merge) > 0 {
		p.warnings = append(p.warnings, fmt.Sprintf("the metalogger in %s is ahead: %d changes are merged (%d common ones are equal)", m.logger.Dir, s.Next-s.Own, s.Overlap))
	}
	emergency := slices.ContainsFunc(m.emergency, func(b mfsmeta.Base) bool { return b.Path == p.base.Path })
	if emergency {
		p.warnings = append(p.warnings, fmt.Sprintf("the master that served last could not save its metadata here; going on from %s (version %d)", p.base.Path, p.base.Version))
	}
	damaged := slices.ContainsFunc(m.own.Bases, func(b mfsmeta.Base) bool {
		return b.Err != nil || slices.Contains(m.failed, b.Path)
	})
	if damaged && p.restore {
		p.warnings = append(p.warnings, "a damaged metadata file is set aside; going on from "+p.base.Name())
	}
	switch {
	case len(p.merge) > 0:
		p.row = rowMerge
	case emergency:
		p.row = rowEmergency
	case damaged && p.restore:
		p.row = rowOlderBase
	case len(p.after) > 0 && p.restore:
		p.row = rowLeftLogs
	case cut > 0:
		p.row = rowTorn
	case !p.restore:
		p.row = rowClean
	case p.base.Name() == cleanName:
		p.row = rowNewer
	default:
		p.row = rowCrashed
	}
}

func tornNames(tears []mfsmeta.Tear) string {
	var list []string
	for _, t := range tears {
		list = append(list, filepath.Base(t.Path))
	}
	return strings.Join(list, ", ")
}
