package query

import (
	"fmt"
	"regexp/syntax"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/strutil"
)

// What a query's text may be. The parser and the engine recurse over it: a million brackets
// would overflow the stack, which no recover catches.
const (
	MaxQueryLength = 64 << 10 // bytes
	MaxQueryDepth  = 400      // expressions inside each other
	MaxQueryTokens = 10_000   // words and signs

	// MaxRegexSize is what all regular expressions of a query may take together, in instructions of the matcher. x{1000} is a
	// thousand, \pL some seven hundred: a text of the length that is allowed could otherwise take gigabytes.
	MaxRegexSize = 100_000

	// MaxLabelGrowth is how many times longer than any that are recorded a query may make a label: label_join of a label with
	// itself, thirty times inside itself, would take a gigabyte.
	MaxLabelGrowth = 64

	// MaxSubquerySteps is how many instants all subqueries of a query may have together. The engine counts samples against its limit
	// while it makes them, but makes an array of all instants first: max_over_time(x[1y:1ms]) would take 500 GB.
	MaxSubquerySteps = 2_000_000

	// MaxSelectors is how many match[] a request may have. Each is a walk over all series.
	MaxSelectors = 1000
)

// longLabel is the length that labels are taken to have for MaxLabelGrowth.
const longLabel = 256

// checkText is what can be said of a query before it is parsed: the parser compiles the regular expressions of matchers, and takes
// seconds for ten thousands of brackets or signs, as what it does grows with their square.
func checkText(q string) error {
	if len(q) > MaxQueryLength {
		return fmt.Errorf("shmts: query: want at most %d bytes, got %d", MaxQueryLength, len(q))
	}
	l, tokens, size, open, pattern := parser.Lex(q), 0, 0, 0, false
	for {
		var item parser.Item
		l.NextItem(&item)
		if tokens++; tokens > MaxQueryTokens {
			return fmt.Errorf("shmts: query: want at most %d words and signs, got more", MaxQueryTokens)
		}
		switch item.Typ {
		case parser.EOF, parser.ERROR:
			return nil // the parser says what is wrong
		case parser.LEFT_PAREN:
			if open++; open > MaxQueryDepth {
				return fmt.Errorf("shmts: query: want at most %d brackets inside each other, got more", MaxQueryDepth)
			}
		case parser.RIGHT_PAREN:
			open--
		case parser.STRING:
			if !pattern {
				break
			}
			text, err := strutil.Unquote(item.Val)
			if err != nil {
				return nil
			}
			if size += regexSize(text); size > MaxRegexSize {
				return errRegexSize
			}
		}
		pattern = item.Typ == parser.EQL_REGEX || item.Typ == parser.NEQ_REGEX
	}
}

var errRegexSize = fmt.Errorf("shmts: query: want regular expressions of at most %d instructions together, got more", MaxRegexSize)

// classSize is what a named class, as \pL, takes: its ranges.
const classSize = 700

// regexSize is what a regular expression takes once it is compiled. One that is wrong takes nothing: who compiles it says so.
func regexSize(text string) int {
	if n := strings.Count(text, `\p`) + strings.Count(text, `\P`); n > MaxRegexSize/classSize {
		return MaxRegexSize + 1 // not even worth parsing
	}
	re, err := syntax.Parse(text, syntax.Perl|syntax.DotNL)
	if err != nil {
		return 0
	}
	return int(instructions(re))
}

// instructions are counted in floats: repeats of repeats of repeats overflow everything else.
func instructions(re *syntax.Regexp) float64 {
	n := float64(1 + len(re.Rune)/2)
	for _, sub := range re.Sub {
		n += instructions(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= float64(max(re.Min, re.Max, 1))
	}
	return n
}

// checkTree is what can be said of a query that is parsed.
func checkTree(expr parser.Expr) error {
	if d := depth(expr); d > MaxQueryDepth {
		return fmt.Errorf("shmts: query: want at most %d expressions inside each other, got %d", MaxQueryDepth, d)
	}
	size := 0
	longest, err := labelLength(expr, &size)
	switch {
	case err != nil:
		return err
	case longest > MaxLabelGrowth*longLabel:
		return fmt.Errorf("shmts: query: want labels that grow at most %d times, got %.3g times by label_join and label_replace", MaxLabelGrowth, longest/longLabel)
	}
	return nil
}

// subqueryStep is that of a subquery which says none.
const subqueryStep = 15 * time.Second

// checkSubqueries holds a query over a span of time to MaxSubquerySteps.
func checkSubqueries(expr parser.Expr, span time.Duration) error {
	if steps := subquerySteps(expr, span.Seconds()); steps > MaxSubquerySteps {
		return fmt.Errorf("shmts: query: want subqueries of at most %d instants together, got %.3g", MaxSubquerySteps, steps)
	}
	return nil
}

// subquerySteps adds up the instants of the subqueries below n; seconds is the span at which n is evaluated.
func subquerySteps(n parser.Node, seconds float64) (steps float64) {
	if s, ok := n.(*parser.SubqueryExpr); ok {
		step := s.Step
		if step <= 0 {
			step = subqueryStep
		}
		seconds += s.Range.Seconds()
		steps = seconds/step.Seconds() + 1
	}
	for c := range parser.ChildrenIter(n) {
		steps += subquerySteps(c, seconds)
	}
	return steps
}

func depth(n parser.Node) int {
	d := 0
	for c := range parser.ChildrenIter(n) {
		d = max(d, depth(c))
	}
	return d + 1
}

// labelLength is how long a label may be in what an expression gives. On its way it adds up the regular expressions of label_replace.
func labelLength(n parser.Node, size *int) (float64, error) {
	longest := float64(longLabel)
	for c := range parser.ChildrenIter(n) {
		l, err := labelLength(c, size)
		if err != nil {
			return 0, err
		}
		longest = max(longest, l)
	}
	call, ok := n.(*parser.Call)
	if !ok {
		return longest, nil
	}
	switch call.Func.Name {
	case "label_replace":
		if *size += regexSize(literal(call.Args, 4)); *size > MaxRegexSize {
			return 0, errRegexSize
		}
		to := literal(call.Args, 2)
		longest = max(longest, float64(strings.Count(to, "$"))*longest+float64(len(to)))
	case "label_join":
		between := literal(call.Args, 2)
		longest = max(longest, float64(len(call.Args)-3)*(longest+float64(len(between))))
	}
	return longest, nil
}

// literal is an argument that is a string.
func literal(args parser.Expressions, i int) string {
	if i < len(args) {
		if s, ok := unwrap(args[i]).(*parser.StringLiteral); ok {
			return s.Val
		}
	}
	return ""
}

func unwrap(e parser.Expr) parser.Expr {
	for {
		p, ok := e.(*parser.ParenExpr)
		if !ok {
			return e
		}
		e = p.Expr
	}
}
