//! `bailiwick chat`: a conversation in the terminal.
//!
//! The answer is shown as it comes; what the agent wants to do is shown before a person lets it. At a
//! terminal an approval is one key; where the input is no terminal, the next line is the answer.

mod answer;
mod input;
mod view;

use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::Chat;
use crate::client::{Ask, Client, ClientError, SessionStream};
use crate::command::{Context, space, text};
use crate::failure::Failure;
use crate::out::{self, Format, Style};
use input::{Input, Typed};
use view::{Boundary, View};

pub(crate) use view::event_line;

/// A conversation ended badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChatError {
    #[error("the terminal cannot be read")]
    Terminal(#[source] std::io::Error),
    #[error("the agent did not finish its turn")]
    TurnFailed,
    #[error("the input ended while the agent waits for an answer: decide it with `bailiwick approval list`")]
    Unanswered,
    #[error("left while a turn is under way; `bailiwick chat --session {0}` goes on with it")]
    Left(String),
}

/// What a person may type instead of a message.
const HELP: &str = "\
/new       begin a new session; this one stays
/reset     end this session
/clear     forget the conversation, keep the session
/compact   put a summary in the place of the conversation
/plan      show the space's plan
/session   show the session's id
/quit      leave (so does Ctrl-D)
Ctrl-C     cancel the turn; twice: leave";

/// A conversation under way.
struct Talk<'a> {
    context: &'a Context,
    client: Client,
    view: View,
    input: Input,
    stream: Option<SessionStream>,
    space: Option<String>,
    failed: bool,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, chat: Chat) -> Result<(), Failure> {
    let mut client = context.client.clone();
    if let Some(agent) = &chat.agent {
        client = client.with_header("x-bailiwick-agent", agent)?;
    }
    if let Some(space) = &chat.space {
        client = client.with_header("x-bailiwick-space", space)?;
    }
    let mut talk = Talk::new(context, client, chat.space);
    if talk.input.is_terminal() {
        let agent = chat.agent.as_deref().unwrap_or("default");
        let line = format!("{} on {}; /help for more", out::clean(agent), talk.client.url());
        out::note(&out::paint(Style::Dim, &line));
    }
    if let Some(id) = chat.session {
        let mut stream = SessionStream::new(talk.client.clone(), id, 0);
        for event in stream.history().await? {
            talk.view.show(&event);
        }
        talk.stream = Some(stream);
        // A session that waits for an answer is asked for it first.
        if !talk.view.open_requests().is_empty() {
            talk.turn(None, Boundary::Input).await?;
        }
    }
    loop {
        match talk.input.line("> ").await.map_err(ChatError::Terminal)? {
            Typed::End => break,
            Typed::Line(line) => match line.trim() {
                "" => {}
                command if command.starts_with('/') => {
                    if !talk.command(command).await? {
                        break;
                    }
                }
                message => talk.say(message).await?,
            },
        }
    }
    if talk.failed { Err(ChatError::TurnFailed.into()) } else { Ok(()) }
}

/// Sends one message into a session and shows the answer.
pub(crate) async fn send_once(context: &Context, id: &str, message: &str) -> Result<(), Failure> {
    let mut talk = Talk::new(context, context.client.clone(), None);
    let mut stream = SessionStream::new(talk.client.clone(), id.to_owned(), 0);
    stream.history().await?;
    talk.stream = Some(stream);
    talk.say(message).await?;
    if talk.failed { Err(ChatError::TurnFailed.into()) } else { Ok(()) }
}

impl<'a> Talk<'a> {
    fn new(context: &'a Context, client: Client, space: Option<String>) -> Self {
        let input = Input::new();
        let view = View::new(context.format);
        Self { context, client, view, input, stream: None, space, failed: false }
    }

    /// Says something and shows what comes of it.
    async fn say(&mut self, message: &str) -> Result<(), Failure> {
        let body = json!({ "message": message });
        let delivery = match &self.stream {
            Some(stream) => {
                let sent = self.client.eve(Method::POST, &["session", stream.id()], Ask::body(&body)).await?;
                Some(text(&sent, "deliveryId")?.to_owned())
            }
            None => {
                let made = self.client.eve(Method::POST, &["session"], Ask::body(&body)).await?;
                let id = text(&made, "sessionId")?.to_owned();
                self.stream = Some(SessionStream::new(self.client.clone(), id, 0));
                None
            }
        };
        self.turn(delivery, Boundary::Not).await
    }

    /// Follows the stream to the end of the turn that begins with `delivery`, and answers what it asks.
    async fn turn(&mut self, delivery: Option<String>, mut at: Boundary) -> Result<(), Failure> {
        let mut begun = delivery.is_none();
        let mut canceled = false;
        loop {
            match at {
                Boundary::Not => {}
                Boundary::Input => {
                    self.answer_open().await?;
                    at = Boundary::Not;
                    continue;
                }
                Boundary::Turn { failed } => {
                    self.failed |= failed;
                    return Ok(());
                }
                Boundary::Session { failed } => {
                    self.failed |= failed;
                    self.stream = None;
                    out::note(&out::paint(Style::Dim, "the session has ended"));
                    return Ok(());
                }
            }
            let Some(stream) = &mut self.stream else { return Ok(()) };
            tokio::select! {
                event = stream.next() => {
                    let event = event?;
                    begun |= delivery.as_ref().is_some_and(|id| event.deliveries.contains(id));
                    let boundary = self.view.show(&event);
                    // What is older than our message does not end our turn.
                    at = if begun { boundary } else { Boundary::Not };
                }
                _ = tokio::signal::ctrl_c() => {
                    let id = stream.id().to_owned();
                    if canceled {
                        return Err(ChatError::Left(id).into());
                    }
                    canceled = true;
                    self.view.end_line();
                    out::note(&out::paint(Style::Warn, "canceling; Ctrl-C again leaves"));
                    self.client.eve(Method::POST, &["session", &id, "cancel"], Ask::body(&json!({}))).await?;
                }
            }
        }
    }

    /// Does what a command says. `false`: leave.
    async fn command(&mut self, command: &str) -> Result<bool, Failure> {
        match command {
            "/quit" | "/exit" | "/q" => return Ok(false),
            "/help" | "/?" => out::line(HELP),
            "/new" => self.stream = None,
            "/session" => match &self.stream {
                Some(stream) => out::line(&out::clean(stream.id())),
                None => out::line("No session yet: it begins with your first message."),
            },
            "/plan" => self.plan().await?,
            "/reset" => {
                self.control("reset").await?;
                self.stream = None;
            }
            "/clear" | "/compact" => {
                if self.control(&command[1..]).await? {
                    self.turn(None, Boundary::Not).await?;
                }
            }
            other => out::note(&format!("{} is no command; /help lists them", out::clean(other))),
        }
        Ok(true)
    }

    /// Sends a command to the session. `false`: there is none, or it has ended.
    async fn control(&mut self, what: &str) -> Result<bool, Failure> {
        let Some(stream) = &self.stream else {
            out::note("No session yet.");
            return Ok(false);
        };
        let path = ["session", stream.id(), what];
        let answer = self.client.eve(Method::POST, &path, Ask::body(&json!({}))).await?;
        let active = answer["status"].as_str().is_some_and(|status| !status.starts_with("no_active"));
        if !active {
            self.stream = None;
            out::note("The session has ended.");
        }
        Ok(active)
    }

    async fn plan(&mut self) -> Result<(), Failure> {
        let space = match (&self.space, &self.stream) {
            (Some(space), _) => Some(space.clone()),
            (None, Some(stream)) => {
                let session = self.context.get(&["sessions", stream.id()]).await?;
                ["space_id", "space"].iter().find_map(|field| session[*field].as_str()).map(str::to_owned)
            }
            (None, None) => personal(&self.context.get(&["spaces"]).await?),
        };
        let Some(space) = space else { return Err(ClientError::Incomplete("space").into()) };
        let plan = self.context.get(&["spaces", &space, "plan"]).await?;
        space::show_plan(Format::Text, &plan);
        Ok(())
    }
}

fn personal(spaces: &Value) -> Option<String> {
    let own = out::array(spaces).iter().find(|space| space["personal"].as_bool() == Some(true))?;
    own["id"].as_str().map(str::to_owned)
}
