package metadata

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/beevik/etree"
	"github.com/stretchr/testify/require"
)

// sample uses everything that a declaration can say.
func sample() Agent {
	return Agent{
		Name:       "sample",
		Version:    "1.2.3",
		ShortDesc:  "shows <everything> & more",
		LongDesc:   "First paragraph with \"quotes\" and 5 < 6.\n\nSecond paragraph.",
		Positional: "NAME[::ZONE]",
		Parameters: []Parameter{
			{
				Name: "name", Required: true, Unique: true, Identifies: true,
				ShortDesc: "name of the thing", LongDesc: "The name of the thing.",
			},
			{
				Name: "port", Type: Integer, Default: "2049", Min: 1, Max: 65535, UniqueGroup: "address",
				ShortDesc: "port", LongDesc: "The port.",
			},
			{
				Name: "mode", Type: Select, Options: []string{"manual", "automatic"}, Default: "manual",
				ShortDesc: "mode", LongDesc: "How it is done.",
			},
			{
				Name: "wait", Aliases: []string{"patience", "delay"}, Type: Seconds, Default: "5", Reloadable: true,
				ShortDesc: "time to wait", LongDesc: "How long to wait.",
			},
			{Name: "eager", Type: Boolean, Default: "false", ShortDesc: "be eager", LongDesc: "Whether to be eager."},
			{Name: "note", ShortDesc: "free text", LongDesc: "Any text; no default."},
		},
		Actions: []Action{
			{Name: "start", Timeout: 40 * time.Second},
			{Name: "stop", Timeout: 100 * time.Second},
			{Name: "monitor", Timeout: 20 * time.Second, Interval: 10 * time.Second, Role: Promoted},
			{Name: "monitor", Timeout: 30 * time.Second, Interval: 11 * time.Second, Depth: 10, Role: Unpromoted},
			{Name: "promote", Timeout: 90 * time.Second},
			{Name: "demote", Timeout: 90 * time.Second},
			{Name: "notify", Timeout: 1500 * time.Millisecond},
			{Name: "reload-agent", Timeout: 20 * time.Second},
			{Name: "validate-all", Timeout: 20 * time.Second},
			{Name: "meta-data", Timeout: 5 * time.Second},
		},
	}
}

func TestTheWholeDeclarationIsWrittenAsTheGoldenDocument(t *testing.T) {
	got, err := sample().XML()
	require.NoError(t, err)
	golden := filepath.Join("testdata", "sample.xml")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		require.NoError(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

// xmllint runs the validator, or skips where libxml2-utils or the schema is not installed.
func xmllint(t *testing.T, document []byte, schema string, args ...string) {
	t.Helper()
	tool, err := exec.LookPath("xmllint")
	if err != nil {
		t.Skip("xmllint is missing: install libxml2-utils")
	}
	if _, err := os.Stat(schema); err != nil {
		t.Skipf("the schema is missing: %v", err)
	}
	cmd := exec.Command(tool, append(args, "--noout", "-")...)
	cmd.Stdin = bytes.NewReader(document)
	said, err := cmd.CombinedOutput()
	require.NoErrorf(t, err, "%s\n%s", said, document)
}

// The DTD is what ocf-tester checks. OCF 1.1's own grammar (ra-api.rng) is in no Debian package and
// is under the FDL, so that it is not here either: testdata/strict.rng holds its rules, in order and
// number, in our words, and narrower. pcs ships the relaxed one that it holds agents against.
var schemas = []struct{ about, file, kind string }{
	{"ra-api-1.dtd", "/usr/share/resource-agents/ra-api-1.dtd", "--dtdvalid"},
	{"OCF 1.1", "testdata/strict.rng", "--relaxng"},
	{"OCF 1.1 as pcs reads it", "/usr/share/pcs/data/ocf-1.1.rng", "--relaxng"},
}

func TestTheDocumentIsValidForOCF11AndForTheOlderDTD(t *testing.T) {
	document, err := sample().XML()
	require.NoError(t, err)
	for _, schema := range schemas {
		t.Run(schema.about, func(t *testing.T) {
			if schema.kind == "--dtdvalid" {
				// As ocf-tester does: the document's own DOCTYPE, found beside the DTD, so that
				// the internal subset counts. --dtdvalid would pass over it.
				xmllint(t, document, schema.file, "--valid", "--path", filepath.Dir(schema.file))
				return
			}
			xmllint(t, document, schema.file, schema.kind, schema.file)
		})
	}
}

func TestWithoutOCF11AttributesTheDocumentFitsTheGrammarOfResourceAgents(t *testing.T) {
	a := sample()
	for i := range a.Parameters {
		a.Parameters[i].UniqueGroup, a.Parameters[i].Reloadable = "", false
	}
	document, err := a.XML()
	require.NoError(t, err)
	const grammar = "/usr/share/resource-agents/metadata.rng"
	xmllint(t, document, grammar, "--relaxng", grammar)
}

// The internal subset is there for a reason: without it ocf-tester would refuse the agent.
func TestTheOlderDTDAloneWouldRefuseReloadAgent(t *testing.T) {
	document, err := sample().XML()
	require.NoError(t, err)
	const dtd = "/usr/share/resource-agents/ra-api-1.dtd"
	tool, err := exec.LookPath("xmllint")
	if err != nil {
		t.Skip("xmllint is missing: install libxml2-utils")
	}
	if _, err := os.Stat(dtd); err != nil {
		t.Skipf("the DTD is missing: %v", err)
	}
	bare := bytes.Replace(document, []byte(doctype), []byte(`DOCTYPE resource-agent SYSTEM "ra-api-1.dtd"`), 1)
	require.NotEqual(t, document, bare)
	cmd := exec.Command(tool, "--valid", "--path", filepath.Dir(dtd), "--noout", "-")
	cmd.Stdin = bytes.NewReader(bare)
	said, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(said), "reload-agent")
	require.Contains(t, string(said), "unique-group")
}

func TestHostileTextComesBackAsItWas(t *testing.T) {
	a := Agent{
		Name: "x", Version: "1", ShortDesc: `</shortdesc><evil/> & "` + "]]>",
		Parameters: []Parameter{{Name: "p", Default: `"'<>&` + "\t", ShortDesc: "s", LongDesc: "l"}},
	}
	document, err := a.XML()
	require.NoError(t, err)
	read := etree.NewDocument()
	require.NoError(t, read.ReadFromBytes(document))
	require.Nil(t, read.FindElement("//evil"))
	require.Equal(t, a.ShortDesc, read.FindElement("/resource-agent/shortdesc").Text())
	require.Equal(t, a.Parameters[0].Default, read.FindElement("//content").SelectAttrValue("default", "none"))
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestADocumentThatCannotBeWrittenIsAnError(t *testing.T) {
	require.ErrorContains(t, sample().WriteXML(brokenPipe{}), "meta-data of sample: broken pipe")
}

func TestTimeoutsAlwaysCarryTheirUnitAndAreNeverRoundedToNone(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Millisecond: "1s", time.Second: "1s", 1001 * time.Millisecond: "2s", 2 * time.Minute: "120s",
	} {
		require.Equal(t, want, seconds(d), d.String())
	}
}

func TestParametersAreFoundByNameAndAlias(t *testing.T) {
	a := sample()
	for name, want := range map[string]string{"wait": "wait", "patience": "wait", "delay": "wait", "port": "port"} {
		p, ok := a.Parameter(name)
		require.True(t, ok, name)
		require.Equal(t, want, p.Name)
	}
	for _, name := range []string{"", "Wait", "nothing"} {
		_, ok := a.Parameter(name)
		require.False(t, ok, name)
	}
}

func TestTheTimeoutOfAnActionIsTheLongestDeclared(t *testing.T) {
	a := sample()
	require.Equal(t, 30*time.Second, a.Timeout("monitor"), "two roles")
	require.Equal(t, 40*time.Second, a.Timeout("start"))
	require.Zero(t, a.Timeout("migrate_to"))
	require.True(t, a.Declares("notify"))
	require.False(t, a.Declares("migrate_to"))
}

func TestDescriptionsTellTheAcceptedWordsAndTheAliases(t *testing.T) {
	a := sample()
	for name, want := range map[string]string{
		"mode": "How it is done.\nOne of: manual, automatic.",
		"wait": "How long to wait.\nAlso accepted as: patience, delay.",
		"port": "The port.",
	} {
		p, _ := a.Parameter(name)
		require.Equal(t, want, p.Describe())
	}
	require.Equal(t, "One of: a.", Parameter{Type: Select, Options: []string{"a"}}.Describe())
}

func TestTheHaresourcesFormIsPartOfTheLongDescription(t *testing.T) {
	a := sample()
	require.Contains(t, a.longDesc(), "In heartbeat's haresources: sample::NAME[::ZONE] (")
	a.Positional = ""
	require.Contains(t, a.longDesc(), "In heartbeat's haresources: sample (")
}
