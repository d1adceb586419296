//! `docs/reference/cli.md`, from the program's own definition of its arguments.

use std::fmt::Write;

use clap::{Arg, ArgAction, Command};

use super::cell;

const TAIL: &str = "
## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | the input of the user is wrong |
| 130 | interrupted, with the state committed |
";

/// The whole page.
pub fn page() -> String {
    let mut program = optune::cli::command();
    program.build();
    let mut page = "# The command line\n".to_string();
    about(&mut page, &program);
    page.push_str("\nThis page is made from the code by a test.\n\n| command | effect |\n|---|---|\n");
    for command in commands(&program) {
        let name = command.get_name();
        writeln!(page, "| [`{name}`](#optune-{name}) | {} |", cell(&meaning(command.get_about()))).unwrap();
    }
    page.push_str("\nEvery command also has:\n\n");
    arguments(&mut page, program.get_arguments().filter(|argument| argument.is_global_set()));
    page.push_str("| `--help`, `--version` | Print help, or the version. |\n");
    for command in commands(&program) {
        section(&mut page, command);
    }
    page + TAIL
}

fn commands(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| command.get_name() != "help" && !command.is_hide_set())
}

fn section(page: &mut String, command: &Command) {
    if command.has_subcommands() {
        writeln!(page, "\n## {}", command.get_bin_name().unwrap_or_default()).unwrap();
        about(page, command);
        commands(command).for_each(|inner| section(page, inner));
        return;
    }
    writeln!(page, "\n## {}", command.get_bin_name().unwrap_or_default()).unwrap();
    about(page, command);
    let usage = command.clone().render_usage().to_string();
    writeln!(page, "\n```\n{}\n```", usage.trim_start_matches("Usage: ").trim()).unwrap();
    let own: Vec<&Arg> = command.get_arguments().filter(|argument| !argument.is_global_set() && !is_help(argument)).collect();
    if !own.is_empty() {
        page.push('\n');
        arguments(page, own.into_iter());
    }
}

fn about(page: &mut String, command: &Command) {
    let text = command.get_long_about().or(command.get_about());
    writeln!(page, "\n{}", cell(&meaning(text))).unwrap();
}

/// A help text as a sentence with its point.
fn meaning(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    let text = text.trim();
    if text.is_empty() || text.ends_with('.') { text.to_string() } else { format!("{text}.") }
}

fn is_help(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version)
}

fn arguments<'a>(page: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    page.push_str("| argument | meaning |\n|---|---|\n");
    for argument in arguments {
        writeln!(page, "| `{}` | {} |", form(argument).replace('|', "\\|"), cell(&description(argument))).unwrap();
    }
}

/// An argument as it is typed.
fn form(argument: &Arg) -> String {
    let values: Vec<String> = match argument.get_value_names() {
        Some(names) if argument.get_action().takes_values() => names.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    let values = values.join(" ");
    let is_optional = argument.get_num_args().is_some_and(|count| count.min_values() == 0 && count.takes_values());
    match argument.get_long() {
        Some(long) if values.is_empty() => format!("--{long}"),
        Some(long) if is_optional => format!("--{long} [{values}]"),
        Some(long) => format!("--{long} {values}"),
        None if argument.is_required_set() => values,
        None => format!("[{values}]"),
    }
}

/// The help of an argument, with its values and its default.
fn description(argument: &Arg) -> String {
    let mut text = meaning(argument.get_long_help().or(argument.get_help()));
    if argument.get_action().takes_values() {
        let values = argument.get_possible_values();
        let values: Vec<String> =
            values.iter().filter(|value| !value.is_hide_set()).map(|value| format!("`{}`", value.get_name())).collect();
        if !values.is_empty() {
            write!(text, " One of {}.", values.join(", ")).unwrap();
        }
        let defaults: Vec<String> = argument.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
        if !defaults.is_empty() {
            write!(text, " Default: {}.", defaults.join(", ")).unwrap();
        }
    }
    text
}
