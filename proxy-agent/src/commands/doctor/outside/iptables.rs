//! Reading what `iptables-save` and its siblings print: the filter table of one family.

use std::collections::BTreeMap;

use super::rules::{Chain, Match, Policy, Prefix, Rule, Ruleset, Target};
use crate::dataplane::Families;

/// The filter table in this text, if it has one. `tool` is the command that changes it, such as `iptables`.
pub(super) fn read(text: &str, tool: &str, v6: bool) -> Option<Ruleset> {
    let table = text.lines().skip_while(|line| *line != "*filter").skip(1);
    let lines: Vec<&str> = table.take_while(|line| *line != "COMMIT").collect();
    if lines.is_empty() {
        return None;
    }
    let mut chains: BTreeMap<String, Chain> = BTreeMap::new();
    for line in &lines {
        // `:FORWARD DROP [0:0]`
        let mut words = line.strip_prefix(':').into_iter().flat_map(str::split_whitespace);
        if let (Some(name), Some(policy)) = (words.next(), words.next()) {
            let policy = if policy == "DROP" { Policy::Drop } else { Policy::Accept };
            let chain = Chain { policy: (name == "FORWARD").then_some(policy), rules: Vec::new() };
            chains.insert(name.to_owned(), chain);
        }
    }
    for line in lines {
        let Some(words) = line.strip_prefix("-A ").map(words) else { continue };
        let Some((name, rest)) = words.split_first() else { continue };
        let (matches, target) = rule(rest, |name| chains.contains_key(name));
        if let Some(chain) = chains.get_mut(name) {
            chain.rules.push(Rule { text: line.to_owned(), matches, target });
        }
    }
    Some(Ruleset { table: format!("{tool}, table filter"), families: Families { v4: !v6, v6 }, chains })
}

/// Words, of which some are in quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut characters) = (Vec::new(), String::new(), false, line.chars());
    while let Some(character) = characters.next() {
        match character {
            '"' => quoted = !quoted,
            '\\' if quoted => word.extend(characters.next()),
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            other => word.push(other),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

fn rule(words: &[String], is_chain: impl Fn(&str) -> bool) -> (Vec<Match>, Target) {
    let (mut matches, mut module, mut inverted) = (Vec::new(), String::new(), false);
    let mut words = words.iter().map(String::as_str).peekable();
    while let Some(option) = words.next() {
        let value = words.peek().copied().unwrap_or_default();
        let found = match option {
            "!" => {
                inverted = true;
                continue;
            }
            "-j" => return (matches, target(value, is_chain)),
            "-g" => return (matches, Target::Goto(value.to_owned())),
            "-m" => {
                value.clone_into(&mut module);
                words.next();
                continue;
            }
            "--comment" => {
                words.next();
                continue;
            }
            "-i" => Match::In(vec![wildcard(value)]),
            "-o" => Match::Out(vec![wildcard(value)]),
            "-p" => Match::Protocol(vec![value.to_owned()]),
            "-s" => Prefix::parse(value).map_or(Match::Unknown, |range| Match::From(vec![range])),
            "-d" => Prefix::parse(value).map_or(Match::Unknown, |range| Match::To(vec![range])),
            "--ctstate" | "--state" => Match::Always(value.split(',').any(|state| state == "NEW")),
            // Nothing of it is true of a first packet that nobody translates, but NONE.
            "--ctstatus" => Match::Always(value.split(',').any(|status| status == "NONE")),
            "--mark" if module == "mark" => marked(value),
            _ => Match::Unknown,
        };
        matches.push(found.inverted(std::mem::take(&mut inverted)));
        while words.next_if(|word| !word.starts_with('-') && *word != "!").is_some() {}
    }
    (matches, Target::Continue)
}

/// `0x4000/0x4000`
fn marked(value: &str) -> Match {
    let number = value.split('/').next().unwrap_or_default().trim_start_matches("0x");
    Match::Marked.inverted(number.chars().all(|digit| digit == '0'))
}

fn wildcard(name: &str) -> String {
    name.strip_suffix('+').map_or_else(|| name.to_owned(), |beginning| format!("{beginning}*"))
}

/// What `-j` names.
pub(super) fn target(name: &str, is_chain: impl Fn(&str) -> bool) -> Target {
    match name {
        "ACCEPT" => Target::Accept,
        "DROP" | "REJECT" => Target::Drop,
        "RETURN" => Target::Return,
        "MARK" | "CONNMARK" => Target::SetMark,
        "AUDIT" | "CHECKSUM" | "CLASSIFY" | "CT" | "DSCP" | "LOG" | "NFLOG" | "SET" | "TCPMSS" | "TOS"
        | "TRACE" | "ULOG" => Target::Continue,
        chain if is_chain(chain) => Target::Jump(chain.to_owned()),
        _ => Target::Unknown,
    }
}
