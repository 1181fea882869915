package output

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"ferrotrace/internal/event"
)

// tables collects rows until they are written.
type tables struct {
	counts    []event.Count
	latencies []event.Latency
	hists     []event.Hist
}

// tables writes the rows that were collected.
func (o *textOutput) tables() {
	o.countTable()
	o.latencyTable()
	for i, h := range o.rows.hists {
		if i > 0 {
			o.print("\n")
		}
		o.print(o.bold, Escape(h.Function), o.off, by(h.By), "\n", h.Text)
	}
	o.rows = tables{}
}

// by is what stands behind a function's name.
func by(text string) string {
	if text == "" {
		return ""
	}
	return "  " + Escape(text)
}

// columns writes lines of cells below their heads, the numbers to the right, the texts
// behind them to the left. A last column that is empty everywhere is left out.
func (o *textOutput) columns(numbers int, heads []string, rows [][]string) {
	last := len(heads) - 1
	if !slices.ContainsFunc(rows, func(r []string) bool { return r[last] != "" }) {
		last--
	}
	widths := make([]int, len(heads))
	for _, r := range append([][]string{heads}, rows...) {
		for i, cell := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	line := func(cells []string) string {
		var b strings.Builder
		for i, cell := range cells[:last+1] {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				b.WriteString("  ")
			}
			switch {
			case i < numbers:
				b.WriteString(pad + cell)
			case i < last:
				b.WriteString(cell + pad)
			default:
				b.WriteString(cell)
			}
		}
		return b.String()
	}
	o.print(o.dim, line(heads), o.off, "\n")
	for _, r := range rows {
		o.print(line(r), "\n")
	}
}

func (o *textOutput) countTable() {
	counts := o.rows.counts
	if len(counts) == 0 {
		return
	}
	slices.SortStableFunc(counts, func(a, b event.Count) int {
		switch {
		case a.Count > b.Count:
			return -1
		case a.Count < b.Count:
			return 1
		}
		return strings.Compare(a.Function, b.Function)
	})
	var rows [][]string
	for _, c := range counts {
		figure := fmt.Sprint(c.Count)
		if !c.Exact {
			figure = "≈" + figure
		}
		rows = append(rows, []string{figure, Escape(c.Function), Escape(c.By)})
	}
	o.columns(1, []string{"COUNT", "FUNCTION", "BY"}, rows)
}

// maxDrawn is how many histograms are drawn below a table.
const maxDrawn = 10

func (o *textOutput) latencyTable() {
	all := o.rows.latencies
	if len(all) == 0 {
		return
	}
	var rows [][]string
	for _, l := range all {
		cells := []string{fmt.Sprint(l.Count)}
		for _, d := range []time.Duration{l.Min, l.P50, l.P90, l.P99, l.P999, l.Max, l.Sum} {
			cells = append(cells, duration(d))
		}
		rows = append(rows, append(cells, Escape(l.Function), Escape(l.By)))
	}
	o.columns(8, []string{"COUNT", "MIN", "P50", "P90", "P99", "P99.9", "MAX", "TOTAL", "FUNCTION", "BY"}, rows)
	for i, l := range all {
		if i == maxDrawn {
			fmt.Fprintf(o.w, "\n%d more histograms are in -o json\n", len(all)-maxDrawn)
			break
		}
		o.print("\n", o.bold, Escape(l.Function), o.off, by(l.By), "\n")
		o.histogram(l.Hist)
	}
}

const barWidth = 52

// histogram draws buckets of nanoseconds, as those of scripts are drawn.
func (o *textOutput) histogram(buckets []event.Bucket) {
	most := uint64(1)
	for _, b := range buckets {
		most = max(most, b.Count)
	}
	for _, b := range buckets {
		label := fmt.Sprintf("[%s, %s)", duration(time.Duration(b.Min)), duration(time.Duration(b.Max+1)))
		pad := strings.Repeat(" ", max(0, 20-utf8.RuneCountInString(label)))
		bar := strings.Repeat("@", int(float64(b.Count)/float64(most)*barWidth))
		fmt.Fprintf(o.w, "%s%s%8d |%-*s|\n", label, pad, b.Count, barWidth, bar)
	}
}

type jsonCount struct {
	Function string `json:"function"`
	By       string `json:"by,omitempty"`
	Count    uint64 `json:"count"`
	Exact    bool   `json:"exact"`
}

type jsonLatency struct {
	Function string       `json:"function"`
	By       string       `json:"by,omitempty"`
	Count    uint64       `json:"count"`
	Min      int64        `json:"min_ns"`
	P50      int64        `json:"p50_ns"`
	P90      int64        `json:"p90_ns"`
	P99      int64        `json:"p99_ns"`
	P999     int64        `json:"p999_ns"`
	Max      int64        `json:"max_ns"`
	Sum      int64        `json:"sum_ns"`
	Hist     []jsonBucket `json:"hist"`
}

type jsonBucket struct {
	Min   uint64 `json:"min"`
	Max   uint64 `json:"max"`
	Count uint64 `json:"count"`
}

func latencyData(e event.Latency) jsonLatency {
	d := jsonLatency{
		Function: e.Function, By: e.By, Count: e.Count, Min: int64(e.Min), P50: int64(e.P50), P90: int64(e.P90), P99: int64(e.P99),
		P999: int64(e.P999), Max: int64(e.Max), Sum: int64(e.Sum), Hist: make([]jsonBucket, 0, len(e.Hist)),
	}
	for _, b := range e.Hist {
		d.Hist = append(d.Hist, jsonBucket(b))
	}
	return d
}

// histData is a histogram by its function, and by what else makes the row.
func histData(e event.Hist) map[string]any {
	buckets := json.RawMessage(e.Buckets)
	if e.By != "" {
		return map[string]any{e.Function: map[string]any{e.By: buckets}}
	}
	return map[string]any{e.Function: buckets}
}
