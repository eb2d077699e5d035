//! What can be said of a PromQL query without running it.

use std::{collections::BTreeSet, convert::Infallible};

use promql_parser::{
    label::MatchOp,
    parser::{self, BinaryExpr, Expr, token},
    util::{ExprVisitor, walk_expr},
};

/// Something about a query that makes its result other than it seems.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum QueryFault {
    /// It is no query.
    Unreadable(String),
    /// It asks for more than one thing; each is named.
    SeveralMetrics(Vec<String>),
    /// Where there is no data, it answers this number.
    FillsIn(f64),
}

/// Every fault of a query, arguments of the template filled in.
pub(super) fn faults(query: &str) -> Vec<QueryFault> {
    match parser::parse(query) {
        Ok(expression) => {
            let several = several(&expression).map(QueryFault::SeveralMetrics);
            several.into_iter().chain(filled_in(&expression).map(QueryFault::FillsIn)).collect()
        }
        Err(error) => match parts(query) {
            Some(parts) => vec![QueryFault::SeveralMetrics(parts)],
            None => vec![QueryFault::Unreadable(error)],
        },
    }
}

/// The parts of a text that is several queries, by line, semicolon or comma; `None` when it is not.
fn parts(query: &str) -> Option<Vec<String>> {
    ['\n', ';', ','].into_iter().find_map(|separator| {
        let parts: Vec<String> = query
            .split(separator)
            .map(|part| part.trim().to_owned())
            .filter(|part| !part.is_empty())
            .collect();
        (parts.len() > 1 && parts.iter().all(|part| parser::parse(part).is_ok())).then_some(parts)
    })
}

/// The metrics on both sides of an outermost `or`, or of one selector, when they are not the same ones.
fn several(expression: &Expr) -> Option<Vec<String>> {
    match expression {
        Expr::Paren(inner) => several(&inner.expr),
        Expr::VectorSelector(selector) => selector.matchers.matchers.iter().find_map(|matcher| {
            let many = matcher.name == "__name__" && !matches!(matcher.op, MatchOp::Equal);
            many.then(|| vec![matcher.value.clone()])
        }),
        Expr::Binary(BinaryExpr { op, lhs, rhs, .. }) if op.id() == token::T_LOR => {
            let (left, right) = (metrics(lhs), metrics(rhs));
            let differ = !left.is_empty() && !right.is_empty() && left.is_disjoint(&right);
            differ.then(|| left.union(&right).cloned().collect())
        }
        _ => None,
    }
}

/// The number of an outermost `or vector(number)`.
fn filled_in(expression: &Expr) -> Option<f64> {
    match expression {
        Expr::Paren(inner) => filled_in(&inner.expr),
        Expr::Binary(BinaryExpr { op, rhs, .. }) if op.id() == token::T_LOR => match &**rhs {
            Expr::Call(call) if call.func.name == "vector" => {
                call.args.args.first().and_then(|argument| match &**argument {
                    Expr::NumberLiteral(number) => Some(number.val),
                    _ => None,
                })
            }
            _ => None,
        },
        _ => None,
    }
}

/// Names of all metrics within.
fn metrics(expression: &Expr) -> BTreeSet<String> {
    struct Names(BTreeSet<String>);
    impl ExprVisitor for Names {
        type Error = Infallible;

        fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Infallible> {
            let name = match expression {
                Expr::VectorSelector(selector) => &selector.name,
                Expr::MatrixSelector(selector) => &selector.vs.name,
                _ => &None,
            };
            self.0.extend(name.clone());
            Ok(true)
        }
    }
    let mut names = Names(BTreeSet::new());
    let Ok(_) = walk_expr(&mut names, expression);
    names.0
}

#[cfg(test)]
mod tests {
    use super::{QueryFault, faults};

    fn several(names: &[&str]) -> Vec<QueryFault> {
        vec![QueryFault::SeveralMetrics(names.iter().map(ToString::to_string).collect())]
    }

    #[test]
    fn a_query_of_one_number_has_no_fault() {
        for query in [
            "sum(rate(a[5m])) / sum(rate(b[5m]))",
            "sum(a) or 0 * sum(a)",
            "sum_over_time((a < bool 1)[44m59s:15m]) and count_over_time((b >= 5)[44m59s:15m]) == 3",
            "(sum(a) > 1) and on () sum(c)",
        ] {
            assert_eq!(faults(query), [], "{query}");
        }
    }

    #[test]
    fn two_metrics_are_found_however_they_are_put_together() {
        assert_eq!(faults("ctr{a=\"b\"} or error_rate"), several(&["ctr", "error_rate"]));
        assert_eq!(faults("(sum(rate(b[5m])) or sum(a))"), several(&["a", "b"]));
        assert_eq!(faults("sum(ctr)\nsum(error_rate)\n"), several(&["sum(ctr)", "sum(error_rate)"]));
        assert_eq!(faults("sum(ctr); sum(error_rate)"), several(&["sum(ctr)", "sum(error_rate)"]));
        assert_eq!(faults("{__name__=~\"ctr|errors\"}"), several(&["ctr|errors"]));
    }

    #[test]
    fn a_number_in_place_of_no_data_is_found() {
        assert_eq!(faults("sum(a) or vector(1)"), [QueryFault::FillsIn(1.0)]);
        assert_eq!(faults("sum(a) or on() vector(0)"), [QueryFault::FillsIn(0.0)]);
    }

    #[test]
    fn what_is_no_query_is_said_to_be_none() {
        assert!(matches!(faults("sum(a").as_slice(), [QueryFault::Unreadable(_)]));
        assert!(matches!(faults("").as_slice(), [QueryFault::Unreadable(_)]));
    }
}
