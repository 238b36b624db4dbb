//! Whether a command and its flags exist, by the definition that parses them.

use clap::{Arg, Command};

use super::Page;

/// A program, and the words by which documents call it.
#[derive(Debug)]
pub struct Program {
    words: &'static [&'static str],
    command: Command,
}

impl Program {
    /// The program with this call, such as `cargo xtask`.
    pub fn new(words: &'static [&'static str], mut command: Command) -> Self {
        // Subcommands know global flags only after `build`.
        command.build();
        Self { words, command }
    }

    /// Whether any of its commands has this long flag.
    pub fn has_flag(&self, name: &str) -> bool {
        fn has(command: &Command, name: &str) -> bool {
            long(command, name).is_some() || command.get_subcommands().any(|command| has(command, name))
        }
        has(&self.command, name)
    }

    /// The fault of a line that calls the program.
    fn fault(&self, line: &str) -> Option<String> {
        let words: Vec<&str> = words(line).collect();
        let start = (0..words.len()).find(|at| {
            // At the beginning of a command, also after `--` as in `kubectl exec … -- sidestep status`.
            let begins =
                *at == 0 || ["--", "sudo", "$"].contains(&words[at - 1]) || words[at - 1].contains('=');
            begins && words[*at..].starts_with(self.words)
        })?;
        check(&self.command, &words[start + self.words.len()..]).err()
    }
}

/// Every call of the program in these pages that its own definition rejects.
pub fn faults(program: &Program, pages: &[Page]) -> Vec<String> {
    let mut faults = Vec::new();
    for page in pages {
        for found in page.spans.iter().chain(&page.shell) {
            if let Some(fault) = program.fault(&found.text) {
                faults.push(format!(
                    "{}:{}: `{}`: {fault}",
                    page.path.display(),
                    found.line,
                    found.text.trim()
                ));
            }
        }
    }
    faults
}

/// The words of one command: up to a comment, a pipe, or another command.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let ends = |word: &&str| !["#", "|", "||", "&", "&&", ";", ">", ">>", "<", "\\"].contains(word);
    line.split_whitespace().take_while(ends).map(|word| word.trim_matches(['"', '\'', ';']))
}

fn check(program: &Command, words: &[&str]) -> Result<(), String> {
    let (mut command, mut words) = (program, words.iter());
    while let Some(word) = words.next() {
        if command.get_arguments().any(Arg::is_trailing_var_arg_set) {
            // The rest belongs to another program.
            return Ok(());
        }
        if let Some(flag) = word.strip_prefix("--") {
            let (name, value) =
                flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
            if name.is_empty() {
                return Ok(());
            }
            let argument = long(command, name)
                .ok_or_else(|| format!("`{}` has no flag --{name}", command.get_name()))?;
            if value.is_none() && argument.get_action().takes_values() && !argument.is_require_equals_set() {
                words.next();
            }
        } else if let Some(letter) = word.strip_prefix('-').and_then(|letters| letters.chars().next()) {
            let argument = command
                .get_arguments()
                .find(|argument| argument.get_short() == Some(letter))
                .ok_or_else(|| format!("`{}` has no flag -{letter}", command.get_name()))?;
            if word.len() == 2 && argument.get_action().takes_values() {
                words.next();
            }
        } else if let Some(found) = command.find_subcommand(word) {
            command = found;
        } else if command.get_positionals().next().is_none() && !stands_for_others(word) {
            return Err(format!("`{}` has no command `{word}`", command.get_name()));
        }
    }
    Ok(())
}

/// The argument `--name` of this command, by any of its names.
fn long<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|argument| {
        argument.get_long() == Some(name)
            || argument.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    })
}

/// Whether a word is a placeholder: `…`, `<command>`, `[flags]`.
fn stands_for_others(word: &str) -> bool {
    word.starts_with(['<', '[', '…', '.'])
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction, Command};

    use super::Program;

    fn program() -> Program {
        let place = Arg::new("place").long("place").global(true);
        let run = Command::new("run")
            .arg(Arg::new("quiet").long("quiet").short('q').alias("silent").action(ArgAction::SetTrue));
        let bench = Command::new("bench").arg(
            Arg::new("rest")
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .num_args(0..)
                .action(ArgAction::Append),
        );
        let status = Command::new("status").arg(Arg::new("filter"));
        let root = Command::new("it").arg(place).subcommands([run, bench, status]);
        Program::new(&["cargo", "it"], root)
    }

    #[test]
    fn calls_that_the_program_accepts_have_no_fault() {
        let program = program();
        for line in [
            "cargo it",
            "cargo it …",
            "cargo it run --quiet --place /run/it # a comment --with=flags",
            "$ sudo cargo it run -q --silent",
            "kubectl exec it -- cargo it status FILTER --place=x | grep --color y",
            "cargo it bench connect --check",
            "NAME=value cargo it status",
            "cargo other --flag",
            "a sentence on cargo it fly",
        ] {
            assert_eq!(program.fault(line), None, "{line}");
        }
        assert!(program.has_flag("quiet") && program.has_flag("place") && !program.has_flag("loud"));
    }

    #[test]
    fn calls_that_the_program_rejects_are_named() {
        let program = program();
        let fault = |line| program.fault(line).expect("a fault");
        assert_eq!(fault("cargo it fly"), "`it` has no command `fly`");
        assert_eq!(fault("cargo it run --loud"), "`run` has no flag --loud");
        assert_eq!(fault("cargo it status -q"), "`status` has no flag -q");
    }
}
