//! Logs: lines for people or JSON for machines, on standard error. Never a value; keys at debug level only.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::Log;

/// Installs the process's logger.
///
/// # Errors
/// If the filter cannot be understood, or a logger is installed already.
pub fn install(log: &Log) -> anyhow::Result<()> {
    let filter: EnvFilter = log.filter.parse()?;
    let builder = fmt::Subscriber::builder().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = if log.json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(true).try_init()
    } else {
        builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    installed.map_err(|error| anyhow::anyhow!(error))
}
