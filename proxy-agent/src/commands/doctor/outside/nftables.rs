//! Reading what `nft -j list ruleset` prints (`libnftables-json(5)`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    iptables,
    rules::{Chain, Match, Policy, Prefix, Rule, Ruleset, Target},
};
use crate::dataplane::Families;

/// The tables with filters. `without_iptables` leaves out those that `iptables-nft-save` tells more of.
pub(super) fn read(text: &str, without_iptables: bool) -> Result<Vec<Ruleset>, serde_json::Error> {
    let root: Value = serde_json::from_str(text)?;
    let mut tables: BTreeMap<(String, String), Ruleset> = BTreeMap::new();
    for object in root["nftables"].as_array().into_iter().flatten() {
        let Some((kind, object)) = object.as_object().and_then(|object| object.iter().next()) else {
            continue;
        };
        let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let families = match object["family"].as_str() {
            Some("ip") => Families { v4: true, v6: false },
            Some("ip6") => Families { v4: false, v6: true },
            Some("inet") => Families { v4: true, v6: true },
            _ => continue,
        };
        let family = text("family");
        if without_iptables && family != "inet" && text("table") == "filter" {
            continue;
        }
        match kind.as_str() {
            "chain" => {
                let is_filter = object["hook"] == "forward" && object["type"] == "filter";
                let policy = if object["policy"] == "drop" { Policy::Drop } else { Policy::Accept };
                let chain = Chain { policy: is_filter.then_some(policy), rules: Vec::new() };
                let name = text("table");
                let described = format!("nftables, table {family} {name}");
                let empty = || Ruleset { table: described, families, chains: BTreeMap::new() };
                tables.entry((family, name)).or_insert_with(empty).chains.insert(text("name"), chain);
            }
            "rule" => {
                let table = tables.get_mut(&(family, text("table")));
                if let Some(chain) = table.and_then(|table| table.chains.get_mut(&text("chain"))) {
                    chain.rules.extend(rules(object));
                }
            }
            _ => {}
        }
    }
    Ok(tables.into_values().collect())
}

/// The rule, and one for each element of a verdict map in it.
fn rules(object: &Value) -> Vec<Rule> {
    let (mut rules, mut matches) = (Vec::new(), Vec::new());
    let handle = object["handle"].as_u64().unwrap_or_default();
    let mut push = |matches: &[Match], target: Target, said: String| {
        rules.push(Rule { text: format!("{said} (handle {handle})"), matches: matches.to_vec(), target });
    };
    for statement in object["expr"].as_array().into_iter().flatten() {
        let Some((kind, body)) = statement.as_object().and_then(|object| object.iter().next()) else {
            continue;
        };
        match kind.as_str() {
            "match" => {
                // Only packets of one family have such a header.
                matches.extend(body["left"]["payload"]["protocol"].as_str().and_then(family));
                matches.push(asked(body));
            }
            "vmap" => match body["data"]["set"].as_array() {
                Some(elements) => {
                    for element in elements {
                        let key = one(&body["key"], &[&element[0]]);
                        let verdict = element[1].as_object().and_then(|object| object.iter().next());
                        let Some((verdict, body)) = verdict else { continue };
                        push(&[&matches[..], &[key]].concat(), target(verdict, body), said(verdict, body));
                    }
                }
                // A map with a name: anything may be in it.
                None => push(&[&matches[..], &[Match::Unknown]].concat(), Target::Unknown, kind.clone()),
            },
            "limit" | "quota" | "xt" if body["type"] != "target" => matches.push(Match::Unknown),
            "xt" => {
                let name = body["name"].as_str().unwrap_or_default();
                push(&matches, iptables::target(name, |_| false), name.to_owned());
            }
            "mangle" => push(&matches, Target::SetMark, kind.clone()),
            "accept" | "drop" | "reject" | "jump" | "goto" | "return" | "queue" | "continue" => {
                push(&matches, target(kind, body), said(kind, body));
            }
            _ => {}
        }
    }
    rules
}

fn target(verdict: &str, body: &Value) -> Target {
    let chain = || body["target"].as_str().unwrap_or_default().to_owned();
    match verdict {
        "accept" => Target::Accept,
        "drop" | "reject" => Target::Drop,
        "jump" => Target::Jump(chain()),
        "goto" => Target::Goto(chain()),
        "return" => Target::Return,
        "continue" => Target::Continue,
        _ => Target::Unknown,
    }
}

/// The verdict as it is written.
fn said(verdict: &str, body: &Value) -> String {
    match (body["type"].as_str(), body["expr"].as_str()) {
        (Some(kind), Some(code)) => format!("{verdict} with {kind} {code}"),
        (Some(kind), None) => format!("{verdict} with {kind}"),
        _ => verdict.to_owned(),
    }
}

/// A match: `{"op": "==", "left": …, "right": …}`.
fn asked(body: &Value) -> Match {
    let right = &body["right"];
    let values: Vec<&Value> = match right["set"].as_array().or_else(|| right.as_array()) {
        Some(values) => values.iter().collect(),
        None => vec![right],
    };
    let found = one(&body["left"], &values);
    match body["op"].as_str() {
        Some("==" | "in") => found,
        Some("!=") => found.inverted(true),
        _ => Match::Unknown,
    }
}

/// Whether what `left` names is one of these.
fn one(left: &Value, values: &[&Value]) -> Match {
    let texts: Option<Vec<String>> = values.iter().map(|value| text(value)).collect();
    // A set with a name begins with `@`.
    let texts = texts.filter(|texts| !texts.iter().any(|text| text.starts_with('@')));
    if left["&"][0]["meta"]["key"] == "mark" || left["meta"]["key"] == "mark" {
        return match texts.as_deref() {
            Some([value]) => Match::Marked.inverted(value == "0"),
            _ => Match::Unknown,
        };
    }
    let Some(texts) = texts else { return Match::Unknown };
    match (left["ct"]["key"].as_str(), left["meta"]["key"].as_str(), left["payload"]["field"].as_str()) {
        (Some("state"), ..) => Match::Always(texts.iter().any(|state| state == "new")),
        (Some("status"), ..) => Match::Always(false),
        (_, Some("iifname" | "iif"), _) => Match::In(texts),
        (_, Some("oifname" | "oif"), _) => Match::Out(texts),
        (_, Some("l4proto"), _) | (_, _, Some("protocol" | "nexthdr")) => Match::Protocol(texts),
        (_, Some("nfproto"), _) => {
            let is = |name: &str| texts.iter().any(|text| text == name);
            match (is("ipv4"), is("ipv6")) {
                (true, false) => family("ip").unwrap_or(Match::Unknown),
                (false, true) => family("ip6").unwrap_or(Match::Unknown),
                (both, _) => Match::Always(both),
            }
        }
        (_, _, Some(field @ ("saddr" | "daddr"))) => {
            let ranges: Option<Vec<Prefix>> = texts.iter().map(|text| Prefix::parse(text)).collect();
            match ranges {
                Some(ranges) if field == "saddr" => Match::From(ranges),
                Some(ranges) => Match::To(ranges),
                None => Match::Unknown,
            }
        }
        _ => Match::Unknown,
    }
}

/// Whether a packet is of the family whose header is called so.
fn family(header: &str) -> Option<Match> {
    let any = match header {
        "ip" => "0.0.0.0/0",
        "ip6" => "::/0",
        _ => return None,
    };
    Prefix::parse(any).map(|any| Match::From(vec![any]))
}

/// A value as it is written; nothing for what is more than one word.
fn text(value: &Value) -> Option<String> {
    let prefix = &value["prefix"];
    match (value, prefix["addr"].as_str(), prefix["len"].as_u64()) {
        (_, Some(address), Some(length)) => Some(format!("{address}/{length}")),
        (Value::String(text), ..) => Some(text.clone()),
        (Value::Number(number), ..) => Some(number.to_string()),
        _ => None,
    }
}
