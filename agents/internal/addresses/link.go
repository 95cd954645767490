package addresses

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Link is one network interface.
type Link struct {
	Index int
	Name  string
	// AltNames are further names it answers to (ip link property add altname).
	AltNames []string
	// Hardware is the ARPHRD_ number of its link type: 1 is Ethernet.
	Hardware uint16
	// HardwareAddr is its MAC address.
	HardwareAddr net.HardwareAddr
	// Flags are the IFF_ bits.
	Flags uint32
	// OperState is the IF_OPER_ state of RFC 2863.
	OperState uint8
	// Carrier tells whether there is a link; false on an interface that is down.
	Carrier bool
	// Master is the index of the bridge, bond or VRF it belongs to, 0 for none.
	Master int
}

// IF_OPER_ states of include/uapi/linux/if.h.
const (
	operUnknown        = 0
	operNotPresent     = 1
	operDown           = 2
	operLowerLayerDown = 3
)

// IsLoopback tells whether it is lo.
func (l Link) IsLoopback() bool { return l.Flags&unix.IFF_LOOPBACK != 0 }

// CanAnnounce tells whether neighbors on this link resolve addresses by ARP
// or neighbor discovery, so that a moved address must be announced.
func (l Link) CanAnnounce() bool {
	return l.Hardware == unix.ARPHRD_ETHER && l.Flags&unix.IFF_NOARP == 0 && len(l.HardwareAddr) == 6
}

// Trouble says in a few words why the interface cannot carry traffic, or
// nothing: "is down", "has no carrier".
func (l Link) Trouble() string {
	switch {
	case l.Flags&unix.IFF_UP == 0:
		return "is down"
	case l.OperState == operNotPresent:
		return "is not present"
	case l.OperState == operDown || l.OperState == operLowerLayerDown,
		// Drivers that know no operational state still know the carrier.
		l.OperState == operUnknown && !l.Carrier && l.Flags&unix.IFF_LOWER_UP == 0:
		return "has no carrier"
	}
	return ""
}

// ErrNoLink says that there is no such interface.
var ErrNoLink = errors.New("no such interface")

// LinkByName finds an interface by its name or an alternative name. The error
// wraps ErrNoLink when there is none.
func LinkByName(name string) (Link, error) {
	if name == "" || len(name) >= maxAltName {
		return Link{}, &Error{Op: "find interface", Object: name, Err: ErrNoLink}
	}
	kind := uint16(unix.IFLA_IFNAME)
	if len(name) >= unix.IFNAMSIZ {
		kind = unix.IFLA_ALT_IFNAME
	}
	// Short alternative names are found by either attribute (net/core/dev.c, __dev_get_by_name).
	l, err := getLink(0, attribute(nil, kind, append([]byte(name), 0)))
	return l, linkError(name, err)
}

// maxAltName is ALTIFNAMSIZ of include/uapi/linux/if.h.
const maxAltName = 128

// LinkByIndex finds an interface by its number. The error wraps ErrNoLink when
// there is none.
func LinkByIndex(index int) (Link, error) {
	l, err := getLink(index, nil)
	return l, linkError(fmt.Sprintf("number %d", index), err)
}

func linkError(object string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE):
		err = ErrNoLink
	}
	return &Error{Op: "find interface", Object: object, Err: err}
}

// getLink asks for one interface, without its statistics and virtual functions.
func getLink(index int, which []byte) (Link, error) {
	header := make([]byte, 4, unix.SizeofIfInfomsg) // AF_UNSPEC, any type
	header = binary.NativeEndian.AppendUint32(header, uint32(index))
	header = binary.NativeEndian.AppendUint64(header, 0) // no flags, no change
	header = append(header, which...)
	skipStats := binary.NativeEndian.AppendUint32(nil, 1<<3) // RTEXT_FILTER_SKIP_STATS
	header = attribute(header, unix.IFLA_EXT_MASK, skipStats)
	msgs, err := request(unix.RTM_GETLINK, unix.RTM_NEWLINK, header)
	if err != nil {
		return Link{}, err
	}
	if len(msgs) == 0 {
		return Link{}, unix.ENODEV
	}
	return parseLink(msgs[0])
}

// parseLink reads one RTM_NEWLINK:
//
//	struct ifinfomsg {
//		unsigned char	ifi_family, __ifi_pad;
//		unsigned short	ifi_type;	/* ARPHRD_* */
//		int		ifi_index;
//		unsigned	ifi_flags;	/* IFF_* */
//		unsigned	ifi_change;
//	};
func parseLink(b []byte) (Link, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return Link{}, errShort
	}
	l := Link{
		Hardware: binary.NativeEndian.Uint16(b[2:]),
		Index:    int(int32(binary.NativeEndian.Uint32(b[4:]))),
		Flags:    binary.NativeEndian.Uint32(b[8:]),
	}
	for kind, value := range attributes(b[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = text(value)
		case unix.IFLA_ADDRESS:
			l.HardwareAddr = append(net.HardwareAddr(nil), value...)
		case unix.IFLA_OPERSTATE:
			l.OperState = first(value)
		case unix.IFLA_CARRIER:
			l.Carrier = first(value) != 0
		case unix.IFLA_MASTER:
			l.Master = int(number(value))
		case unix.IFLA_PROP_LIST:
			for kind, value := range attributes(value) {
				if kind == unix.IFLA_ALT_IFNAME {
					l.AltNames = append(l.AltNames, text(value))
				}
			}
		}
	}
	return l, nil
}

func first(b []byte) uint8 {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}
