package ocftester

import (
	"debug/elf"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// static opens the program and proves that it needs no loader and no library.
func static(t *testing.T, file string, machine elf.Machine) {
	t.Helper()
	program, err := elf.Open(file)
	require.NoError(t, err)
	defer program.Close()
	require.Equal(t, machine, program.Machine)
	for _, p := range program.Progs {
		require.NotEqual(t, elf.PT_INTERP, p.Type, "it asks for a loader")
		require.NotEqual(t, elf.PT_DYNAMIC, p.Type, "it is linked dynamically")
	}
	libraries, err := program.ImportedLibraries()
	require.NoError(t, err)
	require.Empty(t, libraries)
}

func TestTheBinariesAreStatic(t *testing.T) {
	each(t, func(t *testing.T, a *agent) {
		program, err := elf.Open(a.file)
		require.NoError(t, err)
		machine := program.Machine
		require.NoError(t, program.Close())
		static(t, a.file, machine)
	})
}

func TestTheAgentsBuildForBothArchitectures(t *testing.T) {
	if testing.Short() {
		t.Skip("builds every agent twice")
	}
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		each(t, func(t *testing.T, a *agent) {
			file := filepath.Join(t.TempDir(), a.name)
			require.NoError(t, build(a.name, file, "GOOS=linux", "GOARCH="+arch))
			static(t, file, machine)
		})
	}
}
