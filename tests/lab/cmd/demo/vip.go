package main

import (
	"context"

	"baton/tests/lab"
)

// vipAct shows crm-examples/vip: an address moves, and outlives its node.
func vipAct() act {
	return act{name: "vip", title: "an address that clients connect to (ocf:baton:vip)", stage: lab.Cluster, play: playVIP}
}

func playVIP(ctx context.Context, s *show) error {
	const address = "192.0.2.50"
	if err := s.Crm(ctx, "vip/vip.crm"); err != nil {
		return err
	}
	first, err := activeNode(ctx, s, "vip")
	if err != nil {
		return err
	}
	s.say("%s is up on %s", address, first.Name)
	client, err := s.C1.Spawn(ctx, "client", "ping -to "+address+" -every 50ms")
	if err != nil {
		return err
	}
	if err := s.waitOK(ctx, client, 0); err != nil {
		return err
	}
	s.say("the client gets its answers")

	second := s.Other(first)
	err = s.stalled(ctx, client, "planned: crm node standby "+first.Name,
		"Pacemaker stops the address here and starts it there; the agent's own part is the duplicate check before it takes the address", s.handOver(ctx, first, second))
	if err != nil {
		return err
	}
	if err := s.Unstandby(ctx, first); err != nil {
		return err
	}
	if err := s.WaitOnline(ctx, patience, first, second); err != nil {
		return err
	}
	return s.stalled(ctx, client, "unplanned: the power of "+second.Name+" is cut",
		"11 s of it until corosync has agreed that the silent node is dead (token 5 s and consensus 6 s of the example), then as above", func() error {
			if err := second.PowerOff(ctx); err != nil {
				return err
			}
			_, err := s.WaitActive(ctx, "vip", "", first, patience)
			return err
		})
}

// activeNode waits until the resource is active on one node and returns it.
func activeNode(ctx context.Context, s *show, id string) (*lab.Machine, error) {
	var node *lab.Machine
	_, err := s.Wait(ctx, patience, id+" active on one node", func(st lab.Status) bool {
		nodes := st.Active(id, "")
		if len(nodes) != 1 {
			return false
		}
		node = s.Machine(nodes[0])
		return node != nil
	})
	return node, err
}

// handOver is the planned move that both acts show: the standby of one node,
// until the address is up on the other.
func (s *show) handOver(ctx context.Context, from, to *lab.Machine) func() error {
	return func() error {
		if err := s.Standby(ctx, from); err != nil {
			return err
		}
		_, err := s.WaitActive(ctx, "vip", "", to, patience)
		return err
	}
}
