package ocf

import "strings"

// Instance is one instance of a clone on one node, as notifications list them.
type Instance struct {
	Resource string // "drbd_r0:1"
	Node     string // the node's name; empty in lists that come without nodes
}

// Notification is what Pacemaker tells the instances of a clone with notify=true, around each
// action and also, as lists alone, with start and promote (Pacemaker Explained, "Clone
// notifications"). An empty list arrives as a single space.
type Notification struct {
	Type      string // "pre" or "post"; empty outside notify
	Operation string // "start", "stop", "promote", "demote"

	Start, Stop, Promote, Demote []Instance
	// Active, Promoted and Unpromoted are the instances before the announced operations.
	Active, Promoted, Unpromoted []Instance
	Inactive                     []string
	// AllNodes are the cluster's nodes, AvailableNodes those that could run an instance.
	AllNodes, AvailableNodes []string
}

func (e environ) notification() Notification {
	list := func(name string) []Instance {
		return instances(e.meta("notify_"+name+"_resource"), e.meta("notify_"+name+"_uname"))
	}
	twin := func(name, old string) []Instance {
		if found := list(name); len(found) > 0 {
			return found
		}
		return list(old)
	}
	return Notification{
		Type:           e.meta("notify_type"),
		Operation:      e.meta("notify_operation"),
		Start:          list("start"),
		Stop:           list("stop"),
		Promote:        list("promote"),
		Demote:         list("demote"),
		Active:         list("active"),
		Promoted:       twin("promoted", "master"),
		Unpromoted:     twin("unpromoted", "slave"),
		Inactive:       names(e.meta("notify_inactive_resource")),
		AllNodes:       names(e.meta("notify_all_uname")),
		AvailableNodes: names(e.meta("notify_available_uname")),
	}
}

// instances pairs the two parallel lists; a list of nodes that is shorter leaves nodes empty.
func instances(resources, nodes string) []Instance {
	names := strings.Fields(nodes)
	var list []Instance
	for i, resource := range strings.Fields(resources) {
		inst := Instance{Resource: resource}
		if i < len(names) {
			inst.Node = names[i]
		}
		list = append(list, inst)
	}
	return list
}

// names splits a list; an empty one is nil, as a list that was not passed.
func names(list string) []string {
	if strings.TrimSpace(list) == "" {
		return nil
	}
	return strings.Fields(list)
}
