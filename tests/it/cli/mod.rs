//! The command line as a user sees it: output, exit codes, the SQL shell and server, reports.

mod command_line;
mod init;
mod paths;
mod read_only;
mod report;
mod sql_server;
mod sql_shell;
mod terminal;
mod view;
