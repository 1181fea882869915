package index

import (
	"fmt"
	"strings"

	"ferrotrace/internal/location"
	"ferrotrace/internal/rust/abi"
	"ferrotrace/internal/rust/path"
	"ferrotrace/internal/rust/signature"
	"ferrotrace/internal/rust/types"
)

// given is a signature that the user states for a function of which the debug info
// tells none.
type given struct {
	text   string // from the parenthesis on
	params []Param
	result *types.Type
}

// Give takes the signature of a pattern of path.KindSignature, by which functions were
// found, for those of them that the debug info states none of; it is to be called before
// they are planned. Where debug info states one, the given one has to be the same. note
// is what the user should know of it, "" if nothing. The error is a *PatternError.
func (ix *Index) Give(p path.Pattern, functions []*Function) (note string, err error) {
	if p.Kind != path.KindSignature {
		return "", nil
	}
	sig, err := signature.Parse(p)
	if err != nil {
		return "", patternError(err)
	}
	var untyped []*Function
	for _, f := range functions {
		if _, _, ok := f.Signature(); !ok {
			untyped = append(untyped, f)
		} else if !f.isOf(sig) {
			return "", &PatternError{fmt.Sprintf("%s is %s by its debug info, not %s", f.Name, f.Type(), p.Text[p.Params:]),
				"leave the signature out: what the debug info states is shown"}
		}
	}
	if len(untyped) == 0 {
		return "", nil
	}
	for _, f := range untyped {
		if f.Name != untyped[0].Name {
			return "", &PatternError{fmt.Sprintf("%s names %d functions, and a signature is one's: %s, %s, …", p.Text, len(untyped), untyped[0].Name, f.Name),
				"write more of the path of the one that is meant"}
		}
	}
	g, err := ix.lay(sig, p)
	if err != nil {
		return "", err
	}
	for _, f := range untyped {
		if f.given != nil && f.given.text != g.text {
			return "", &PatternError{fmt.Sprintf("two signatures are given for %s: %s and %s", f.Name, f.given.text, g.text), "leave one out"}
		}
		f.given = g
	}
	if len(untyped) > 1 {
		note = fmt.Sprintf("%d functions go by the name %s: the signature is taken for each of them", len(untyped), untyped[0].Name)
	}
	return note, nil
}

// lay makes types of a signature, or says of which it can't.
func (ix *Index) lay(sig signature.Signature, p path.Pattern) (*given, error) {
	g := &given{text: p.Text[p.Params:], result: sig.Result.Layout}
	tested := ix.tested()
	check := func(t signature.Type) error {
		why, advice := t.Why, "what can be given: integers, bool, char, floats, references, Box and raw pointers to such, &str, slices, arrays, "+
			"Option of references, Box and NonZero, String and Vec. To see other types, build with debug = true"
		switch l := t.Layout; {
		case l == nil:
			if t.Self || strings.HasPrefix(t.Text, "&") || strings.HasPrefix(t.Text, "*") {
				advice = "if it is a reference to a type of a fixed size it is one address: *const () shows that. " + advice
			}
		case sig.C && !plain(l):
			why = "where extern \"C\" passes it is not worked out without debug info"
		case !tested && (t.Std || !plain(l) && !wide(l)):
			why = "where it is depends on the compiler's version, and the file names none from 1.95 to 1.97"
		default:
			return nil
		}
		return &PatternError{fmt.Sprintf("%s: the type %s can't be taken from a signature: %s", p.Text, t.Text, why), advice}
	}
	for _, param := range sig.Params {
		if err := check(param.Type); err != nil {
			return nil, err
		}
		g.params = append(g.params, Param{Name: param.Name, Type: param.Type.Layout})
	}
	return g, check(sig.Result)
}

// plain says whether both conventions pass a type in one register, or nowhere.
func plain(t *types.Type) bool {
	k := abi.Classify(t).Kind
	return k == abi.Scalar || k == abi.Float || k == abi.ZST
}

// wide says whether a type is a pointer with a length, or an Option of one.
func wide(t *types.Type) bool { return abi.Classify(t).Kind == abi.Pair }

// tested says whether the file's code was made by compilers that the calling convention
// and the layouts of std are known of.
func (ix *Index) tested() bool {
	comment, err := ix.File.Section(".comment")
	if err != nil {
		return false
	}
	known := false
	for c := range strings.SplitSeq(string(comment), "\x00") {
		v, ok := strings.CutPrefix(c, "rustc version ")
		if !ok {
			continue
		}
		if !strings.HasPrefix(v, "1.95.") && !strings.HasPrefix(v, "1.96.") && !strings.HasPrefix(v, "1.97.") {
			return false
		}
		known = true
	}
	return known
}

// isOf says whether the signature that the debug info states is the one given. Paths of
// types may be shortened, as in patterns.
func (f *Function) isOf(sig signature.Signature) bool {
	params, result, _ := f.Signature()
	if len(params) != len(sig.Params) {
		return false
	}
	var want, have strings.Builder
	for i, p := range params {
		have.WriteString(p.Type.Name + ", ")
		want.WriteString(written(sig.Params[i].Type) + ", ")
	}
	if result != nil {
		have.WriteString(result.Name)
		want.WriteString(written(sig.Result))
	} else if sig.Result.Text != "()" && sig.Result.Text != "!" {
		return false
	}
	pattern, err := path.ParsePattern("f::<" + want.String() + ">")
	return err == nil && pattern.MatchName("f::<"+have.String()+">") == path.Exact
}

// written is a type as a pattern has it: as debug info would write it, if that is known.
func written(t signature.Type) string {
	switch {
	case t.Self:
		return "_"
	case t.Layout != nil:
		return t.Layout.Name
	}
	return t.Text
}

// Type is a function's type as Rust writes it, "" if the debug info does not state it.
func (f *Function) Type() string {
	params, result, ok := f.Signature()
	if !ok {
		return ""
	}
	var b strings.Builder
	b.WriteString("fn(")
	for i, p := range params {
		if i > 0 {
			b.WriteString(", ")
		}
		if p.Name != "" {
			b.WriteString(p.Name + ": ")
		}
		b.WriteString(p.Type.Display())
	}
	b.WriteString(")")
	if result != nil && result.Kind != types.Unit {
		b.WriteString(" -> " + result.Display())
	}
	return b.String()
}

// Given says whether the types of the function's arguments and result are the user's
// word.
func (f *Function) Given() bool { return f.given != nil }

// notInlined is why nothing is known of an inlined instance.
const notInlined = "unsupported: only debug info tells where it is in an inlined call"

// givenParams are the parameters that the user has stated, in the places that the ABI
// has for them, as far as the function's code shows that it still has them there.
func (in *Instance) givenParams(ix *Index, fl *flow) []Param {
	g := in.Fn.given
	params := make([]Param, len(g.params))
	copy(params, g.params)
	var places []location.Place
	if in.Inlined {
		for _, p := range params {
			places = append(places, location.MissingPlace(int(p.Type.Size), notInlined))
		}
	} else {
		places, _ = ix.passedPlaces(in, fl, g)
	}
	for i := range params {
		params[i].ambiguous = in.Fn.Ambiguous && !in.Inlined
		params[i].place = &places[i]
	}
	return params
}

// givenResult is the result of the type that the user has stated.
func (in *Instance) givenResult(ix *Index, fl *flow, p *Plan) *Result {
	t := in.Fn.given.result
	if t.Kind == types.Unit || t.Kind == types.Never {
		return nil
	}
	r := &Result{Type: t}
	if in.Fn.Ambiguous {
		r.Missing = ambiguous
		return r
	}
	switch place := abi.Result(t); place.Kind {
	case abi.Nowhere:
	case abi.Unclear:
		r.Missing = "unsupported: " + place.Why
	case abi.Indirect:
		if _, kept := ix.passedPlaces(in, fl, in.Fn.given); !kept {
			r.Missing = changedSignature
		} else if !in.inMemory(fl, p, r, place) {
			r.Missing = changedSignature
		}
	default:
		if ix.keepsSignature(in) || in.returned(ix, fl, p, place) {
			r.Place = place.Location
		} else {
			r.Missing = "unsupported: result may have been removed"
		}
	}
	return r
}
