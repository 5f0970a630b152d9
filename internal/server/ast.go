package server

import (
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// node is an expression as parse_query shows it.
type node map[string]any

// translate shows an expression in the format of Prometheus's parse_query.
func translate(e parser.Expr) any {
	switch n := e.(type) {
	case *parser.AggregateExpr:
		return node{"type": "aggregation", "op": n.Op.String(), "expr": translate(n.Expr), "param": translate(n.Param),
			"grouping": list(n.Grouping), "without": n.Without}
	case *parser.BinaryExpr:
		var matching any
		if m := n.VectorMatching; m != nil {
			matching = node{"card": m.Card.String(), "labels": list(m.MatchingLabels), "on": m.On, "include": list(m.Include),
				"fillValues": node{"lhs": m.FillValues.LHS, "rhs": m.FillValues.RHS}}
		}
		return node{"type": "binaryExpr", "op": n.Op.String(), "lhs": translate(n.LHS), "rhs": translate(n.RHS),
			"matching": matching, "bool": n.ReturnBool}
	case *parser.Call:
		args := []any{}
		for _, a := range n.Args {
			args = append(args, translate(a))
		}
		return node{"type": "call", "args": args, "func": node{"name": n.Func.Name, "argTypes": n.Func.ArgTypes,
			"variadic": n.Func.Variadic, "returnType": n.Func.ReturnType}}
	case *parser.MatrixSelector:
		out := selector("matrixSelector", n.VectorSelector.(*parser.VectorSelector))
		out["range"], out["rangeExpr"] = n.Range.Milliseconds(), nil
		return out
	case *parser.VectorSelector:
		return selector("vectorSelector", n)
	case *parser.SubqueryExpr:
		return node{"type": "subquery", "expr": translate(n.Expr), "range": n.Range.Milliseconds(), "rangeExpr": nil,
			"offset": n.OriginalOffset.Milliseconds(), "offsetExpr": nil, "step": n.Step.Milliseconds(), "stepExpr": nil,
			"timestamp": n.Timestamp, "startOrEnd": edge(n.StartOrEnd)}
	case *parser.NumberLiteral:
		return node{"type": "numberLiteral", "val": strconv.FormatFloat(n.Val, 'f', -1, 64)}
	case *parser.StringLiteral:
		return node{"type": "stringLiteral", "val": n.Val}
	case *parser.ParenExpr:
		return node{"type": "parenExpr", "expr": translate(n.Expr)}
	case *parser.UnaryExpr:
		return node{"type": "unaryExpr", "op": n.Op.String(), "expr": translate(n.Expr)}
	}
	return nil // an aggregation without a parameter; our parser knows no duration expressions
}

func selector(kind string, n *parser.VectorSelector) node {
	return node{"type": kind, "name": n.Name, "offset": n.OriginalOffset.Milliseconds(), "offsetExpr": nil, "matchers": matchers(n.LabelMatchers),
		"timestamp": n.Timestamp, "startOrEnd": edge(n.StartOrEnd), "anchored": n.Anchored, "smoothed": n.Smoothed}
}

func matchers(in []*labels.Matcher) []node {
	out := []node{}
	for _, m := range in {
		out = append(out, node{"name": m.Name, "value": m.Value, "type": m.Type.String()})
	}
	return out
}

// edge is start() or end() after an @.
func edge(i parser.ItemType) any {
	if i == 0 {
		return nil
	}
	return i.String()
}

func list(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}
