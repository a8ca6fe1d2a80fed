//! `doorward run`.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{ConfigArguments, ENVIRONMENT, OK, chain, complain, runtime, show_faults};
use crate::app::{self, AppError, Options, Running};
use crate::worker::Workers;

const EXAMPLES: &str = "Examples:
  doorward run --config /etc/doorward/doorward.yaml --json
  For tests with port 0, which learn the real ports from a file:
      doorward run --config doorward.yaml --ready-file ready.json

SIGHUP reads the configuration again, and so does a change of its files; a faulty
configuration changes nothing. SIGTERM or SIGINT drains, a second one cuts what
is still open, and a third ends at once. Logs go to standard error
(`DOORWARD_LOG=debug` for more), audit records where the configuration says.

Exit codes: 0 drained, 1 requests were cut or records lost at the end, 2 usage or
configuration, 3 environment (an address in use, state that cannot be read).";

/// What to serve by.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Run {
    #[command(flatten)]
    config: ConfigArguments,
    /// Worker threads [default: one a core]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// When serving, write the addresses to this file as JSON
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Write logs as JSON lines
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(super) fn run(self) -> u8 {
        app::log_to_stderr(self.json);
        app::guard_process();
        let (runtime, workers) = match runtime(self.workers) {
            Ok(started) => started,
            Err(error) => {
                complain(self.json, &format!("no runtime: {error}"));
                return ENVIRONMENT;
            }
        };
        runtime.block_on(self.serve(workers))
    }

    async fn serve(self, workers: Arc<Workers>) -> u8 {
        let mut signals = match Signals::install() {
            Ok(signals) => signals,
            Err(error) => {
                complain(self.json, &format!("signals cannot be handled: {error}"));
                return ENVIRONMENT;
            }
        };
        let options = Options { config: self.config.config.clone(), workers, ..Options::default() };
        let started = tokio::select! {
            started = app::start(options) => started,
            () = signals.stop() => return OK,
        };
        let running = match started {
            Ok(running) => running,
            Err(AppError::Configuration(faults)) => {
                return show_faults(&faults, self.json);
            }
            Err(error) => {
                complain(self.json, &format!("doorward cannot start: {}", chain(&error)));
                return ENVIRONMENT;
            }
        };
        if let Some(path) = &self.ready_file
            && let Err(error) = running.write_ready_file(path)
        {
            complain(self.json, &format!("`{}` cannot be written: {error}", path.display()));
            // Requests may have come already, and they are on record.
            running.drain().await;
            return ENVIRONMENT;
        }
        wait_for_signals(running, signals).await
    }
}

/// What the process is told from outside. Installed before anything else: from then on SIGHUP never ends it.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes the signals over from the system's own answers to them.
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// SIGTERM or SIGINT.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Reloads on SIGHUP, drains on SIGTERM and SIGINT. A second SIGINT or SIGTERM cuts what is still open, and the records
/// of it are written; a third ends the process at once.
pub(super) async fn wait_for_signals(mut running: Running, mut signals: Signals) -> u8 {
    loop {
        tokio::select! {
            _ = signals.hang_up.recv() => running.reload(),
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            () = running.failed() => return ENVIRONMENT,
        }
    }
    let shutdown = running.shutdown();
    let mut drain = pin!(running.drain());
    let drained = tokio::select! {
        drained = &mut drain => drained,
        () = signals.stop() => {
            tracing::warn!("told to end again: what is still open is cut");
            shutdown.cut();
            tokio::select! {
                drained = drain => drained,
                () = signals.stop() => {
                    tracing::error!("told to end a third time: records may be lost");
                    false
                }
            }
        }
    };
    if drained { OK } else { super::NO }
}
