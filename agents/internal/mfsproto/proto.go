// Package mfsproto asks a MooseFS master questions over its own protocol, without authentication
// and without starting a process. A connection and one answer take a few milliseconds.
//
// The formats were observed on MooseFS 3.0.117; the sizes that other versions answer with stand in
// the tables beside the parsers.
package mfsproto

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// ErrProtocol says that something answers which is no MooseFS master, or one too new to be
// understood.
var ErrProtocol = errors.New("not an answer of a MooseFS master")

// A frame is u32 BE type, u32 BE length, and that many bytes. Either side may send frames of type
// 0 (NOP) at any time.
const (
	typeNop        = 0
	typeGetConfig  = 80
	typeConfig     = 81
	typeCserv      = 500
	typeCservList  = 501
	typeInfo       = 510
	typeInfoReply  = 511
	typeMlog       = 522
	typeMlogList   = 523
	typeModule     = 530
	typeModuleInfo = 531

	frameHead = 8
	// maxFrame bounds what is read of one answer: a list of ten thousand servers has 700 kB.
	maxFrame = 4 << 20
	// maxNops bounds how many NOPs are stepped over before an answer: a master sends one a second.
	maxNops = 1000
)

// Client is a connection to a master's port for clients. It is not safe for concurrent use. A
// master closes a connection that was silent for 10 s.
type Client struct {
	conn net.Conn
	ctx  context.Context
}

// Dial connects; everything asked over the connection has to be answered before ctx ends. address
// is host:port.
func Dial(ctx context.Context, address string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return newClient(ctx, conn), nil
}

func newClient(ctx context.Context, conn net.Conn) *Client {
	if until, ok := ctx.Deadline(); ok {
		// A connection that refuses its deadline is dead; the next use of it says so.
		_ = conn.SetDeadline(until)
	}
	return &Client{conn: conn, ctx: ctx}
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// ask sends one request and returns the data of the answer.
func (c *Client) ask(request, reply uint32, data []byte) ([]byte, error) {
	frame := binary.BigEndian.AppendUint32(nil, request)
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(data)))
	if _, err := c.conn.Write(append(frame, data...)); err != nil {
		return nil, c.late(err)
	}
	head := make([]byte, frameHead)
	for range maxNops {
		if _, err := io.ReadFull(c.conn, head); err != nil {
			return nil, c.late(err)
		}
		kind, length := binary.BigEndian.Uint32(head), binary.BigEndian.Uint32(head[4:])
		if length > maxFrame || kind != reply && kind != typeNop {
			return nil, fmt.Errorf("%w: frame of type %d and %d bytes in answer to %d", ErrProtocol, kind, length, request)
		}
		body := make([]byte, length)
		if _, err := io.ReadFull(c.conn, body); err != nil {
			return nil, c.late(err)
		}
		if kind == reply {
			return body, nil
		}
	}
	return nil, fmt.Errorf("%w: nothing but empty frames", ErrProtocol)
}

// late says that the time was over where the connection only knows that its own deadline was.
func (c *Client) late(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		if c.ctx.Err() != nil {
			return fmt.Errorf("no answer: %w", c.ctx.Err())
		}
		return fmt.Errorf("no answer: %w", context.DeadlineExceeded)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("connection closed by the other side: %w", err)
	}
	return err
}

// Version is a MooseFS version.
type Version struct {
	Major, Minor, Patch int
	Pro                 bool
}

// Less compares versions without regard to Pro.
func (v Version) Less(major, minor, patch int) bool {
	if v.Major != major {
		return v.Major < major
	}
	if v.Minor != minor {
		return v.Minor < minor
	}
	return v.Patch < patch
}

func (v Version) String() string {
	pro := ""
	if v.Pro {
		pro = " PRO"
	}
	return fmt.Sprintf("%d.%d.%d%s", v.Major, v.Minor, v.Patch, pro)
}

// parseVersion reads u16 major, u8 minor, u8 patch. Since 1.7 the last byte is twice the patch
// level, plus one for PRO; before, it is the patch level itself.
func parseVersion(b []byte) Version {
	v := Version{Major: int(binary.BigEndian.Uint16(b)), Minor: int(b[2]), Patch: int(b[3])}
	if v.Major > 1 || v.Minor > 6 {
		v.Pro, v.Patch = v.Patch&1 == 1, v.Patch/2
	}
	return v
}

// Info is what a master says of itself.
type Info struct {
	Version Version
	// MetaVersion is the id of the next change; HasMetaVersion is false for versions that do not
	// tell (1.6, or an answer of unknown size).
	MetaVersion    uint64
	HasMetaVersion bool
	// Files, Dirs and Chunks count what the master serves; valid with HasMetaVersion.
	Files, Dirs, Chunks uint32
	// LastStore is when the metadata were last written to disk, zero if not since the start;
	// StoreFailed says that it went wrong.
	LastStore   time.Time
	StoreFailed bool
}

// Info asks for INFO.
func (c *Client) Info() (Info, error) {
	data, err := c.ask(typeInfo, typeInfoReply, nil)
	if err != nil {
		return Info{}, err
	}
	return parseInfo(data)
}

// metaVersionAt is the offset of the metadata version by the size of the whole answer. 1.6 answers
// with 68, 76 or 101 bytes and does not tell it.
func metaVersionAt(size int) (offset int, ok bool) {
	switch size {
	case 121, 129, 173:
		return 113, true
	case 137, 149, 181, 193: // 149: 3.0.103 and newer
		return 121, true
	case 205: // 4.26 and newer
		return 125, true
	}
	return 0, false
}

func parseInfo(data []byte) (Info, error) {
	if len(data) < 68 {
		return Info{}, fmt.Errorf("%w: INFO of %d bytes", ErrProtocol, len(data))
	}
	i := Info{Version: parseVersion(data)}
	if i.Version.Major == 0 {
		return Info{}, fmt.Errorf("%w: version 0", ErrProtocol)
	}
	at, ok := metaVersionAt(len(data))
	if !ok {
		return i, nil
	}
	u32 := func(at int) uint32 { return binary.BigEndian.Uint32(data[at:]) }
	i.MetaVersion, i.HasMetaVersion = binary.BigEndian.Uint64(data[at:]), true
	if len(data) == 149 {
		// Offsets of 3.0.103 and newer: 80 directories, 84 files, 88 chunks, 100 time and 108
		// status of the last store (0 in the background, 1 downloaded, 2 in the foreground).
		i.Dirs, i.Files, i.Chunks = u32(80), u32(84), u32(88)
		if at := u32(100); at > 0 {
			i.LastStore = time.Unix(int64(at), 0)
		}
		i.StoreFailed = data[108] > 2
	}
	return i, nil
}

// Module is who answers on the port.
type Module struct {
	Master  bool
	Version Version
	// MetaID names the file system; 0 until a new one has had its first change.
	MetaID uint64
}

// Module asks for MODULE_INFO.
func (c *Client) Module() (Module, error) {
	data, err := c.ask(typeModule, typeModuleInfo, nil)
	if err != nil {
		return Module{}, err
	}
	return parseModule(data)
}

// parseModule: u8 type (1 is a master), version, u16 id, u64 meta id, u32 address and u16 port of
// the leader: 21 bytes in 3.0. The parts that matter have not moved since.
func parseModule(data []byte) (Module, error) {
	if len(data) < 15 {
		return Module{}, fmt.Errorf("%w: MODULE_INFO of %d bytes", ErrProtocol, len(data))
	}
	return Module{
		Master:  data[0] == 1,
		Version: parseVersion(data[1:]),
		MetaID:  binary.BigEndian.Uint64(data[7:]),
	}, nil
}

// Config asks for a value of the configuration file that the master runs with. It is empty if the
// file does not set it, or for a version that does not tell.
func (c *Client) Config(name string) (string, error) {
	if len(name) > 255 {
		return "", fmt.Errorf("name of %d bytes", len(name))
	}
	data := binary.BigEndian.AppendUint32(nil, configID)
	data = append(append(data, byte(len(name))), name...)
	reply, err := c.ask(typeGetConfig, typeConfig, data)
	if err != nil {
		return "", err
	}
	return parseConfig(reply)
}

// configID is the message id of a GET_CONFIG; the answer repeats it.
const configID = 1

func parseConfig(data []byte) (string, error) {
	if len(data) < 5 || binary.BigEndian.Uint32(data) != configID || len(data) < 5+int(data[4]) {
		return "", fmt.Errorf("%w: CONFIG of %d bytes", ErrProtocol, len(data))
	}
	return string(data[5 : 5+int(data[4])]), nil
}

// Metaloggers asks how many metaloggers follow the master, by their addresses.
func (c *Client) Metaloggers() ([]net.IP, error) {
	data, err := c.ask(typeMlog, typeMlogList, nil)
	if err != nil {
		return nil, err
	}
	return parseMetaloggers(data)
}

// parseMetaloggers: u32 version and u32 address for each.
func parseMetaloggers(data []byte) ([]net.IP, error) {
	const entry = 8
	if len(data)%entry != 0 {
		return nil, fmt.Errorf("%w: MLOG_LIST of %d bytes", ErrProtocol, len(data))
	}
	var list []net.IP
	for ; len(data) > 0; data = data[entry:] {
		list = append(list, net.IPv4(data[4], data[5], data[6], data[7]))
	}
	return list, nil
}

// Chunkservers are the chunk servers that a master knows.
type Chunkservers struct{ Connected, Disconnected int }

// Chunkservers asks for the list of chunk servers.
func (c *Client) Chunkservers() (Chunkservers, error) {
	data, err := c.ask(typeCserv, typeCservList, nil)
	if err != nil {
		return Chunkservers{}, err
	}
	return parseChunkservers(data)
}

// parseChunkservers: entries of one size each, 69 bytes in 3.0.117, 64 before 2.1, 73 and 77 in 4.
// Byte 0 holds flags, the lowest is "disconnected"; bytes 1 to 3 are the server's version.
func parseChunkservers(data []byte) (Chunkservers, error) {
	for _, size := range []int{69, 73, 77, 64} {
		if s, ok := countChunkservers(data, size); ok {
			return s, nil
		}
	}
	return Chunkservers{}, fmt.Errorf("%w: CSERV_LIST of %d bytes", ErrProtocol, len(data))
}

func countChunkservers(data []byte, size int) (Chunkservers, bool) {
	var s Chunkservers
	if len(data)%size != 0 {
		return s, false
	}
	for ; len(data) > 0; data = data[size:] {
		if data[1] > 9 || data[1] == 0 && data[0]&1 == 0 {
			return s, false
		}
		if data[0]&1 == 1 {
			s.Disconnected++
		} else {
			s.Connected++
		}
	}
	return s, true
}
