//! What a person types: lines, and single keys where the input is a terminal.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};

use crate::out::{self, Style};

/// A line, or the end of the input.
pub(super) enum Typed {
    Line(String),
    End,
}

/// The standard input.
pub(super) struct Input {
    terminal: bool,
}

impl Input {
    pub(super) fn new() -> Self {
        Self { terminal: io::stdin().is_terminal() && io::stdout().is_terminal() }
    }

    /// Whether a person sits there.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Throws away what was typed and not read yet, if a person types.
    pub(super) fn forget_typed(&self) {
        if self.terminal {
            // A terminal that cannot do it has nothing waiting, or its next read fails and says why.
            let _ = rustix::termios::tcflush(io::stdin(), rustix::termios::QueueSelector::IFlush);
        }
    }

    /// The next line. Ctrl-C is the end.
    pub(super) async fn line(&self, prompt: &str) -> io::Result<Typed> {
        if self.terminal {
            out::piece(&out::paint(Style::Accent, prompt));
        }
        let read = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            io::stdin().read_line(&mut line).map(|bytes| (bytes, line))
        });
        tokio::select! {
            read = read => match read {
                Ok(Ok((0, _))) => {
                    if self.terminal {
                        out::line("");
                    }
                    Ok(Typed::End)
                }
                Ok(Ok((_, line))) => Ok(Typed::Line(line)),
                Ok(Err(error)) => Err(error),
                Err(error) => Err(io::Error::other(error)),
            },
            _ = tokio::signal::ctrl_c() => {
                out::line("");
                Ok(Typed::End)
            }
        }
    }
}

/// Waits for one key. Dropping it gives the terminal back.
pub(super) struct Keys {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<io::Result<Option<Key>>>,
}

/// A key that means something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Interrupt,
}

impl Keys {
    /// Begins to listen.
    pub(super) fn listen() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        Self { stop, task: tokio::task::spawn_blocking(move || one_key(&stopped)) }
    }

    /// The key; `None` if listening was stopped. Can be dropped while it waits, and called again until
    /// it has answered.
    pub(super) async fn key(&mut self) -> io::Result<Option<Key>> {
        match (&mut self.task).await {
            Ok(key) => key,
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Stops listening, and waits until the terminal is as it was.
    pub(super) async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = (&mut self.task).await;
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Keeps the terminal raw, and makes it as it was again.
struct Raw;

impl Raw {
    fn begin() -> io::Result<Self> {
        enable_raw_mode()?;
        Ok(Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = disable_raw_mode();
    }
}

fn one_key(stop: &AtomicBool) -> io::Result<Option<Key>> {
    let _raw = Raw::begin()?;
    while !stop.load(Ordering::Relaxed) {
        if !event::poll(Duration::from_millis(100))? {
            continue;
        }
        let Event::Key(key) = event::read()? else { continue };
        if key.kind != KeyEventKind::Press {
            continue;
        }
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(Some(Key::Interrupt)),
            KeyCode::Char(c) if (key.modifiers - KeyModifiers::SHIFT).is_empty() => {
                return Ok(Some(Key::Char(c.to_ascii_lowercase())));
            }
            _ => {}
        }
    }
    Ok(None)
}
