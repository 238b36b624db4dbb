//! Checks that an expression can match: every metric, label and value that it names is in a scrape, and the labels of
//! both sides of an operator match.

use std::collections::BTreeSet;

use promql_parser::{
    label::{MatchOp, Matcher},
    parser::{
        AggregateExpr, BinModifier, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality,
        VectorSelector, token, value::ValueType,
    },
};

use super::scrape::{ADDED, Scrape};

pub(super) type Labels = BTreeSet<String>;

/// The labels of the expression's result, or what is wrong with the expression.
pub(super) fn check(text: &str, scrape: &Scrape) -> Result<Labels, String> {
    let expr = promql_parser::parser::parse(text)?;
    labels(&expr, scrape)
}

fn labels(expr: &Expr, scrape: &Scrape) -> Result<Labels, String> {
    match expr {
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(Labels::new()),
        Expr::Paren(paren) => labels(&paren.expr, scrape),
        Expr::Unary(unary) => labels(&unary.expr, scrape),
        Expr::Subquery(query) => labels(&query.expr, scrape),
        Expr::VectorSelector(vector) => selected(vector, scrape),
        Expr::MatrixSelector(matrix) => selected(&matrix.vs, scrape),
        Expr::Aggregate(aggregate) => aggregated(aggregate, scrape),
        Expr::Binary(binary) => matched(binary, scrape),
        Expr::Call(call) => returned(call, scrape),
        Expr::Extension(_) => Err(format!("{expr}: not PromQL")),
    }
}

fn selected(vector: &VectorSelector, scrape: &Scrape) -> Result<Labels, String> {
    let name = vector.name.as_deref().ok_or_else(|| format!("{vector}: no metric"))?;
    let known = scrape.labels(name).ok_or_else(|| format!("{name}: the agent has no such metric"))?;
    for matcher in &vector.matchers.matchers {
        if ADDED.contains(&matcher.name.as_str()) {
            continue;
        }
        let values =
            known.get(&matcher.name).ok_or_else(|| format!("{name} has no label {}", matcher.name))?;
        for value in named(matcher) {
            if !values.contains(value) {
                return Err(format!("{name} has no {}={value:?}, but {values:?}", matcher.name));
            }
        }
    }
    Ok(known.keys().cloned().chain(ADDED.map(str::to_owned)).collect())
}

/// The literal values of a matcher.
fn named(matcher: &Matcher) -> Vec<&str> {
    match matcher.op {
        MatchOp::Equal | MatchOp::NotEqual => vec![&matcher.value],
        MatchOp::Re(_) | MatchOp::NotRe(_) => {
            let plain = |part: &&str| part.chars().all(|letter| letter.is_alphanumeric() || letter == '-');
            matcher.value.split('|').filter(plain).collect()
        }
    }
}

fn aggregated(aggregate: &AggregateExpr, scrape: &Scrape) -> Result<Labels, String> {
    let inner = labels(&aggregate.expr, scrape)?;
    match &aggregate.modifier {
        None if [token::T_TOPK, token::T_BOTTOMK].contains(&aggregate.op.id()) => Ok(inner),
        None => Ok(Labels::new()),
        Some(LabelModifier::Include(by)) => {
            let by: Labels = by.labels.iter().cloned().collect();
            match by.difference(&inner).next() {
                Some(lacking) => Err(format!("{aggregate}: by {lacking}, a label that its operand lacks")),
                None => Ok(by),
            }
        }
        Some(LabelModifier::Exclude(without)) => {
            Ok(inner.into_iter().filter(|label| !without.labels.contains(label)).collect())
        }
    }
}

fn matched(binary: &BinaryExpr, scrape: &Scrape) -> Result<Labels, String> {
    let (left, right) = (labels(&binary.lhs, scrape)?, labels(&binary.rhs, scrape)?);
    if binary.rhs.value_type() == ValueType::Scalar {
        return Ok(left);
    }
    if binary.lhs.value_type() == ValueType::Scalar {
        return Ok(right);
    }
    let is = |operator| binary.op.id() == operator;
    let on = match &binary.modifier {
        Some(BinModifier { matching: Some(LabelModifier::Include(on)), .. }) => on.labels.clone(),
        Some(BinModifier { matching: Some(LabelModifier::Exclude(_)), .. }) => {
            return Err(format!("{binary}: use `on`, not `ignoring`"));
        }
        // `or` returns the series of either side.
        _ if is(token::T_LOR) => return Ok(&left | &right),
        _ if left == right => return Ok(left),
        _ => return Err(format!("{binary}: {left:?} never matches {right:?}")),
    };
    if let Some(lacking) = on.iter().find(|label| !left.contains(*label) || !right.contains(*label)) {
        return Err(format!("{binary}: on {lacking}, a label that one side lacks"));
    }
    let card = binary.modifier.as_ref().map(|modifier| &modifier.card);
    Ok(match card {
        Some(VectorMatchCardinality::ManyToOne(more)) => {
            left.into_iter().chain(more.labels.clone()).collect()
        }
        Some(VectorMatchCardinality::OneToMany(more)) => {
            right.into_iter().chain(more.labels.clone()).collect()
        }
        Some(VectorMatchCardinality::ManyToMany) => left,
        _ => on.into_iter().collect(),
    })
}

fn returned(call: &Call, scrape: &Scrape) -> Result<Labels, String> {
    let mut all = Labels::new();
    for argument in &call.args.args {
        all.extend(labels(argument, scrape)?);
    }
    match call.func.name {
        "scalar" | "vector" | "time" => Ok(Labels::new()),
        "histogram_quantile" if all.remove("le") => Ok(all),
        "histogram_quantile" => Err(format!("{call}: the label le is gone")),
        _ => Ok(all),
    }
}

/// The check accepts valid expressions, and names the fault of invalid ones.
#[test]
fn expressions_that_cannot_find_anything_are_named() {
    let scrape = Scrape::read(
        "# TYPE a gauge\na{x=\"1\",y=\"2\"} 5\na{x=\"3\",y=\"2\"} 5\nb{x=\"1\"} 0.5\nh_bucket{le=\"+Inf\"} 3\n",
    );
    for (text, expected) in [
        ("a{x=\"1\"}", &["instance", "job", "x", "y"][..]),
        ("sum by (x) (rate(a{x=~\"1|3\"}[5m])) > 0", &["x"]),
        ("topk(3, sum by (x, y) (a))", &["x", "y"]),
        ("a / on (x) group_left b", &["instance", "job", "x", "y"]),
        ("sum(a) or vector(0)", &[]),
        ("histogram_quantile(0.9, sum by (le) (rate(h_bucket[5m])))", &[]),
        ("time() - b", &["instance", "job", "x"]),
        ("up{job=\"any\"} == 0", &["instance", "job"]),
    ] {
        let found = check(text, &scrape).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{text}");
    }
    for (text, named) in [
        ("c", "no such metric"),
        ("a{z=\"1\"}", "no label z"),
        ("a{x=\"2\"}", "x=\"2\""),
        ("a{x=~\"1|2\"}", "x=\"2\""),
        ("sum by (z) (a)", "by z"),
        ("a / b", "never matches"),
        ("a / on (y) b", "on y"),
        ("histogram_quantile(0.9, sum(rate(h_bucket[5m])))", "le is gone"),
        ("rate(a)", "expected type matrix"),
        ("sum(", "unclosed left parenthesis"),
    ] {
        let error = check(text, &scrape).expect_err(text);
        assert!(error.contains(named), "{text}: {error}");
    }
}
