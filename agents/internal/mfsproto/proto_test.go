package mfsproto

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Answers of a real MooseFS 3.0.117 master with one chunk server, as they came over the wire.
const (
	realInfo = "000300ea000000000cada000000000000027b0e900000000001566f400000016c4ef40000000001237ff40000000001237ff" +
		"4000000000000000000000000000000000000000000000000000000000010000000100000000000000000000000000000000" +
		"000000000000000000ffffffff0000000000000000000000000000000552e97cd3d918fb30000660c80079492500000000"
	realModule = "01000300ea00006b0183725f682e43000000000000"
	realCserv  = "000300eac00002014bde0001000000048cf0000000000016c4ef40000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
	realConfig = "000000010e2f746d702f6d6673782f64617461"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func TestAnswersOfARealMasterAreUnderstood(t *testing.T) {
	i, err := parseInfo(unhex(t, realInfo))
	require.NoError(t, err)
	require.Equal(t, Info{
		Version: Version{Major: 3, Patch: 117}, MetaVersion: 5, HasMetaVersion: true, Dirs: 1,
	}, i)

	m, err := parseModule(unhex(t, realModule))
	require.NoError(t, err)
	require.Equal(t, Module{Master: true, Version: Version{Major: 3, Patch: 117}, MetaID: 7710588564285173315}, m)

	c, err := parseChunkservers(unhex(t, realCserv))
	require.NoError(t, err)
	require.Equal(t, Chunkservers{Connected: 1}, c)

	v, err := parseConfig(unhex(t, realConfig))
	require.NoError(t, err)
	require.Equal(t, "/tmp/mfsx/data", v)
}

func TestVersionStandsWhereEachVersionPutsIt(t *testing.T) {
	for size, at := range map[int]int{121: 113, 129: 113, 173: 113, 137: 121, 149: 121, 181: 121, 193: 121, 205: 125} {
		b := make([]byte, size)
		copy(b, []byte{0, 4, 58, 8})
		binary.BigEndian.PutUint64(b[at:], 12345)
		i, err := parseInfo(b)
		require.NoError(t, err)
		require.Equal(t, Version{Major: 4, Minor: 58, Patch: 4}, i.Version)
		require.True(t, i.HasMetaVersion, size)
		require.EqualValues(t, 12345, i.MetaVersion, size)
	}
	for _, size := range []int{68, 76, 101, 300} {
		b := make([]byte, size)
		copy(b, []byte{0, 1, 6, 27})
		i, err := parseInfo(b)
		require.NoError(t, err)
		require.False(t, i.HasMetaVersion, size)
		require.Equal(t, "1.6.27", i.Version.String())
	}
}

func TestProAndPatchShareAByte(t *testing.T) {
	require.Equal(t, Version{Major: 4, Minor: 44, Patch: 4, Pro: true}, parseVersion([]byte{0, 4, 44, 9}))
	require.True(t, Version{Major: 3, Patch: 105}.Less(3, 0, 106))
	require.False(t, Version{Major: 4}.Less(3, 99, 99))
}

func TestHostileAnswersAreErrors(t *testing.T) {
	_, err := parseInfo(make([]byte, 149))
	require.ErrorIs(t, err, ErrProtocol, "version 0")
	_, err = parseInfo(nil)
	require.ErrorIs(t, err, ErrProtocol)
	_, err = parseModule(make([]byte, 14))
	require.ErrorIs(t, err, ErrProtocol)
	for _, b := range [][]byte{nil, {0, 0, 0, 1}, {0, 0, 0, 2, 0}, {0, 0, 0, 1, 5, 'a'}} {
		_, err = parseConfig(b)
		require.ErrorIs(t, err, ErrProtocol)
	}
	_, err = parseChunkservers(make([]byte, 70))
	require.ErrorIs(t, err, ErrProtocol)
	_, err = parseMetaloggers(make([]byte, 9))
	require.ErrorIs(t, err, ErrProtocol)
	list, err := parseMetaloggers([]byte{0, 3, 0, 234, 192, 0, 2, 7})
	require.NoError(t, err)
	require.Equal(t, "192.0.2.7", list[0].String())
}

func FuzzParsers(f *testing.F) {
	for _, s := range []string{realInfo, realModule, realCserv, realConfig} {
		b, _ := hex.DecodeString(s)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = parseInfo(data)
		_, _ = parseModule(data)
		_, _ = parseConfig(data)
		_, _ = parseMetaloggers(data)
		if c, err := parseChunkservers(data); err == nil && c.Connected+c.Disconnected > len(data) {
			t.Fatal("more servers than bytes")
		}
	})
}

// answer plays a master that reads one request and writes these bytes.
func answer(t *testing.T, patience time.Duration, bytes []byte) *Client {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		head := make([]byte, frameHead)
		if _, err := io.ReadFull(theirs, head); err != nil {
			return
		}
		if n := binary.BigEndian.Uint32(head[4:]); n > 0 {
			_, _ = io.ReadFull(theirs, make([]byte, n))
		}
		_, _ = theirs.Write(bytes)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(func() { cancel(); ours.Close(); theirs.Close() })
	return newClient(ctx, ours)
}

func frame(kind uint32, data []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, kind)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(data))), data...)
}

func TestEmptyFramesBeforeAnAnswerAreSteppedOver(t *testing.T) {
	nops := append(frame(0, nil), frame(0, []byte{1, 2, 3})...)
	m, err := answer(t, 10*time.Second, append(nops, frame(typeModuleInfo, unhex(t, realModule))...)).Module()
	require.NoError(t, err)
	require.True(t, m.Master)
}

func TestASilentMasterIsADeadlineAndALyingOneAnError(t *testing.T) {
	_, err := answer(t, 50*time.Millisecond, nil).Info()
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = answer(t, 50*time.Millisecond, frame(typeInfoReply, make([]byte, 149))[:100]).Info()
	require.ErrorIs(t, err, context.DeadlineExceeded, "a torn answer")
	_, err = answer(t, 10*time.Second, frame(999, nil)).Info()
	require.ErrorIs(t, err, ErrProtocol)
	_, err = answer(t, 10*time.Second, []byte("HTTP/1.1 400 Bad Request\r\n\r\n")).Info()
	require.ErrorIs(t, err, ErrProtocol)
	huge := frame(typeInfoReply, nil)
	binary.BigEndian.PutUint32(huge[4:], 1<<31)
	_, err = answer(t, 10*time.Second, huge).Info()
	require.ErrorIs(t, err, ErrProtocol, "no memory is taken for a length that nobody sends")
}
