package ocf

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"baton/metadata"
)

// everyType declares a parameter of each type.
func everyType() metadata.Agent {
	return metadata.Agent{
		Name: "every",
		Parameters: []metadata.Parameter{
			{Name: "name", Required: true, ShortDesc: "name of the thing"},
			{Name: "port", Type: metadata.Integer, Default: "2049", Min: 1, Max: 65535},
			{Name: "offset", Type: metadata.Integer, Min: -5, Max: 5},
			{Name: "mode", Type: metadata.Select, Options: []string{"manual", "auto"}, Default: "manual"},
			{Name: "wait", Aliases: []string{"patience", "delay"}, Type: metadata.Seconds, Default: "5"},
			{Name: "eager", Type: metadata.Boolean, Default: "true"},
			{Name: "text"},
		},
	}
}

func TestValuesAreCheckedAgainstTheirDeclaration(t *testing.T) {
	for _, c := range []struct {
		param, value string
		found        string // empty: accepted
		expected     string
	}{
		{"port", "1", "", ""},
		{"port", "65535", "", ""},
		{"port", "0", `"0"`, "a whole number from 1 to 65535"},
		{"port", "65536", `"65536"`, "a whole number from 1 to 65535"},
		{"port", "-1", `"-1"`, "a whole number from 1 to 65535"},
		{"port", "2049.0", `"2049.0"`, "a whole number from 1 to 65535"},
		{"port", " 2049", `" 2049"`, "a whole number from 1 to 65535"},
		{"port", "99999999999999999999", `"99999999999999999999"`, "a whole number from 1 to 65535"},
		{"offset", "-5", "", ""},
		{"mode", "auto", "", ""},
		{"mode", "Auto", `"Auto"`, "one of manual, auto"},
		{"wait", "0", "", ""},
		{"wait", "10s", "", ""},
		{"wait", "10m", `"10m"`, "a whole number of seconds from 0"},
		{"wait", "-1", `"-1"`, "a whole number of seconds from 0"},
		{"wait", "9223372036854775807", `"9223372036854775807"`, "a whole number of seconds from 0"},
		{"eager", "OFF", "", ""},
		{"eager", "maybe", `"maybe"`, "true or false"},
		{"text", "any thing; $(here) 'is' \"taken\" | as it is \t ä 漢", "", ""},
		{"text", "two\nlines", `"two\nlines"`, "text without line breaks"},
		{"text", "two\rlines", `"two\rlines"`, "text without line breaks"},
		{"text", "bell\a", `"bell\a"`, "text without the control character 0x07"},
		{"text", "csi \u009b", `"csi \u009b"`, "text without the control character 0x9b"},
		{"text", "\xff\xfe", `"\xff\xfe"`, "text without bytes that are not UTF-8"},
		{"text", "replacement \ufffd is a character", "", ""},
		{"text", strings.Repeat("x", 64<<10), "", ""},
		{"text", strings.Repeat("x", 64<<10+1), `"` + strings.Repeat("x", 59) + `"…`, "at most 65536 characters"},
	} {
		p := newParams(everyType(), map[string]string{"name": "x", c.param: c.value})
		var want []Problem
		if c.found != "" {
			want = []Problem{{Param: c.param, Kind: BadConfig, Found: c.found, Expected: c.expected, Do: "correct " + c.param}}
		}
		require.Equal(t, want, p.problems(), "%s=%.80q", c.param, c.value)
	}
}

func TestAMissingRequiredParameterIsAProblemEmptyCountsAsMissing(t *testing.T) {
	for _, values := range []map[string]string{nil, {"name": ""}} {
		require.Equal(t, []Problem{{
			Param: "name", Kind: BadConfig, Found: "no value given", Expected: "name of the thing", Do: "set name",
		}}, newParams(everyType(), values).problems())
	}
}

func TestProblemsComeInTheOrderOfTheDeclaration(t *testing.T) {
	var params []string
	for _, p := range newParams(everyType(), map[string]string{"eager": "x", "wait": "x", "port": "x"}).problems() {
		params = append(params, p.Param)
	}
	require.Equal(t, []string{"name", "port", "wait", "eager"}, params)
}

func TestGettersGiveTypedValuesAndDefaults(t *testing.T) {
	none := newParams(everyType(), nil)
	require.Equal(t, "", none.String("name"))
	require.Equal(t, 2049, none.Int("port"))
	require.Equal(t, 0, none.Int("offset"))
	require.Equal(t, "manual", none.String("mode"))
	require.Equal(t, 5*time.Second, none.Seconds("wait"))
	require.True(t, none.Bool("eager"))
	require.False(t, none.IsSet("port"), "a default is not set")

	given := newParams(everyType(), map[string]string{"port": "80", "delay": "7s", "eager": "nein", "text": "a"})
	require.Equal(t, 80, given.Int("port"))
	require.Equal(t, 7*time.Second, given.Seconds("wait"))
	require.False(t, given.Bool("eager"))
	require.True(t, given.IsSet("wait"), "by an alias")
}

func TestTheNameBeatsItsAliasesAndEmptyValuesBeatNothing(t *testing.T) {
	for _, c := range []struct {
		values map[string]string
		want   string
	}{
		{map[string]string{"wait": "1", "patience": "2", "delay": "3"}, "1"},
		{map[string]string{"patience": "2", "delay": "3"}, "2"},
		{map[string]string{"wait": "", "delay": "3"}, "3"},
		{map[string]string{"wait": "", "delay": ""}, "5"},
	} {
		require.Equal(t, c.want, newParams(everyType(), c.values).String("wait"))
	}
}

func TestWithoutAValueTheDefaultHoldsByNameOrAlias(t *testing.T) {
	p := newParams(everyType(), map[string]string{"wait": "9", "port": "80"})
	require.Equal(t, "5", p.without("wait").String("wait"))
	require.Equal(t, "5", p.without("delay").String("wait"), "by alias")
	require.Equal(t, "9", p.String("wait"), "the original is untouched")
	require.Equal(t, "80", p.without("wait").String("port"))
}

func TestAskingForWhatIsNotDeclaredIsAMistakeOfTheCode(t *testing.T) {
	p := newParams(everyType(), nil)
	require.PanicsWithValue(t, `parameter "label" is not declared by every`, func() { p.String("label") })
	require.Panics(t, func() { p.Seconds("delay") }, "an alias is for the caller, not for the code")
}

func TestQuotedValuesStayShortHoweverTheyAreEscaped(t *testing.T) {
	require.Equal(t, `""`, quote(""))
	require.Equal(t, `"192.0.2.50"`, quote("192.0.2.50"))
	require.Equal(t, `"a\"b\n"`, quote("a\"b\n"))
	for _, value := range []string{
		strings.Repeat("x", 100_000), strings.Repeat("\x01", 60), strings.Repeat("\xff", 1000),
		strings.Repeat("漢", 30), strings.Repeat("\u202e", 50), "x" + strings.Repeat("\U0001f600", 40),
	} {
		q := quote(value)
		require.LessOrEqual(t, len(q), 60+len(`"…`), q)
		require.True(t, strings.HasSuffix(q, `"…`), q)
		require.NotContains(t, q, "\ufffd")
		require.NotContains(t, q, "?")
	}
}

func TestUnknownNamesAreListedInOrder(t *testing.T) {
	require.Equal(t, []string{"Wait", "zzz"}, unknown(everyType(), map[string]string{"zzz": "", "wait": "1", "delay": "1", "Wait": "1", "trace_ra": "1", "trace_file": "/x"}))
}

func FuzzParametersNeverBreakTheAgentOrForgeALine(f *testing.F) {
	for _, v := range []string{"", "5", "10s", "-1", "9223372036854775807s", "true", "manual", "\n", "\xff", "ocf-exit-reason:x", "\u2028"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, value string) {
		for _, par := range everyType().Parameters {
			p := newParams(everyType(), map[string]string{"name": "x", par.Name: value})
			require.GreaterOrEqual(t, max(p.Seconds("wait"), 0), time.Duration(0))
			problems := p.problems()
			for _, problem := range problems {
				require.NotContains(t, problem.Error(), "\n")
				require.Less(t, len(problem.Error()), 400)
			}
			if len(problems) == 0 && value != "" {
				require.NotContains(t, value, "\n")
				require.GreaterOrEqual(t, p.Seconds("wait"), time.Duration(0))
			}
		}
	})
}
