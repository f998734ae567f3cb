//! The transport against far sides that lie, lead elsewhere, never end and never begin.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use bailiwick_testkit::far_side::FarSide;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::*;
use crate::names::tests::{PUBLIC, Told};
use crate::reach::{Origin, Plain};

const SOON: Duration = Duration::from_millis(300);
const LATER: Duration = Duration::from_secs(2);
const AMPLE: Bounds = Bounds { first_byte: LATER, between: LATER, whole: LATER, body: 1024 * 1024 };
/// Another address of this machine, where what is inside listens.
const INSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A transport that asks this resolver, and believes the far side's certificate.
fn transport(told: &Arc<Told>, far: &FarSide) -> Transport {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(far.root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    Transport::by(SOON, &Names::Told(Arc::clone(told)), &tls).unwrap()
}

/// A transport as the server has it.
fn system() -> Transport {
    Transport::new(SOON).unwrap()
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn named(text: &str) -> Reach {
    Reach::Named(Origin::of(&url(text), Plain::Loopback).unwrap())
}

async fn get(transport: &Transport, at: &str, reach: &Reach) -> Result<Answer, SendError> {
    transport.send(Request::get(url(at)), reach, AMPLE).await
}

async fn status(transport: &Transport, at: &str, reach: &Reach) -> Result<u16, SendError> {
    get(transport, at, reach).await.map(|answer| answer.status())
}

/// What a raw server says, after it has read what was asked.
#[derive(Clone)]
enum Say {
    Nothing,
    /// This, and then it hangs up.
    All(String),
    /// This, and then it stays.
    Begin(String),
    /// The first, and the second for ever.
    Endless(String, String),
    /// The first, and then that many bytes, each after a pause.
    Drip(String, usize, Duration),
    /// The two, the second when it is told to.
    Halves(String, String, Arc<Notify>),
}

/// A server on the loopback that counts who comes.
struct Raw {
    port: u16,
    came: Arc<AtomicUsize>,
}

impl Raw {
    async fn new(say: Say) -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0), say).await
    }

    async fn at(place: (Ipv4Addr, u16), say: Say) -> Self {
        let listener = TcpListener::bind(place).await.unwrap();
        let (port, came) = (listener.local_addr().unwrap().port(), Arc::<AtomicUsize>::default());
        let counting = Arc::clone(&came);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counting.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(speak(stream, say.clone()));
            }
        });
        Self { port, came }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    fn came(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }
}

/// Says it, and no more once the other side has gone.
async fn speak(mut stream: TcpStream, say: Say) -> std::io::Result<()> {
    let mut asked = [0; 4096];
    let _ = stream.read(&mut asked).await?;
    match say {
        Say::Nothing => {}
        Say::All(text) => return stream.write_all(text.as_bytes()).await,
        Say::Begin(text) => stream.write_all(text.as_bytes()).await?,
        Say::Endless(first, piece) => {
            stream.write_all(first.as_bytes()).await?;
            loop {
                stream.write_all(piece.as_bytes()).await?;
            }
        }
        Say::Drip(first, many, pause) => {
            stream.write_all(first.as_bytes()).await?;
            for _ in 0..many {
                tokio::time::sleep(pause).await;
                stream.write_all(b"x").await?;
            }
            return Ok(());
        }
        Say::Halves(first, second, told) => {
            stream.write_all(first.as_bytes()).await?;
            told.notified().await;
            return stream.write_all(second.as_bytes()).await;
        }
    }
    // Until the other side has had enough.
    while stream.read(&mut asked).await? > 0 {}
    Ok(())
}

/// The head of an answer whose body ends with the connection.
const HEAD: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";

fn sized(length: usize) -> Say {
    Say::All(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length)))
}

fn unsized_(length: usize) -> Say {
    Say::All(format!("{HEAD}{}", "x".repeat(length)))
}

#[tokio::test]
async fn g08_a_public_name_is_called_and_one_that_leads_inside_is_not() {
    let far = FarSide::start(&["far.example", "in.example"]).await;
    let told = Told::new(&[
        ("far.example", &[&[PUBLIC]]),
        (
            "in.example",
            &[
                &["127.0.0.1"],
                &["10.0.0.7", "192.168.0.1", "172.16.0.1"],
                &["169.254.169.254"],
                &["100.64.0.1"],
                &["::1"],
                &["::ffff:127.0.0.1"],
                &["64:ff9b::7f00:1"],
                &["2002:7f00:1::"],
                &["fd00:ec2::254"],
                &["0.0.0.0"],
                &["127.0.0.1"],
            ],
        ),
    ]);
    let transport = transport(&told, &far);
    let at = |name: &str| format!("https://{name}:{}/", far.tls);
    for number in 0..10 {
        assert_eq!(status(&transport, &at("in.example"), &Reach::Public).await, Err(SendError::Network), "{number}");
    }
    assert_eq!(told.asked().len(), 10);
    // The controls: the public name is called, and so is the one inside where the operator named it.
    assert_eq!(status(&transport, &at("far.example"), &Reach::Public).await, Ok(200));
    assert_eq!(status(&transport, &at("in.example"), &named(&at("in.example"))).await, Ok(200));
    // Where clouds keep credentials nobody is called, whoever named it.
    let told = Told::new(&[("in.example", &[&["169.254.169.254", "fd00:ec2::254", "fe80::1"]])]);
    let transport = self::transport(&told, &far);
    let refused = status(&transport, &at("in.example"), &named(&at("in.example"))).await;
    assert_eq!((refused, told.asked().len()), (Err(SendError::Network), 1));
    // A name that is nowhere is no refusal.
    assert_eq!(status(&transport, &at("no.example"), &Reach::Public).await, Err(SendError::Unreachable));
}

#[tokio::test]
async fn g08_of_mixed_addresses_the_public_ones_alone_are_called() {
    let far = FarSide::start(&["mixed.example"]).await;
    let inside = Raw::at((INSIDE, far.tls), Say::All(String::new())).await;
    let told = Told::new(&[("mixed.example", &[&["127.0.0.2", "10.0.0.7", PUBLIC, "::1"]])]);
    let transport = transport(&told, &far);
    let at = format!("https://mixed.example:{}/", far.tls);
    assert_eq!(status(&transport, &at, &Reach::Public).await, Ok(200));
    assert_eq!(inside.came(), 0);
    // The control: what is inside can be reached, and is by the operator's word.
    let _ = status(&transport, &at, &named(&at)).await;
    assert_eq!(inside.came(), 1);
}

#[tokio::test]
async fn g08_a_name_that_leads_elsewhere_the_second_time_is_judged_the_second_time() {
    let far = FarSide::start(&["rebind.example"]).await;
    let inside = Raw::at((INSIDE, far.tls), Say::All(String::new())).await;
    let told = Told::new(&[("rebind.example", &[&[PUBLIC], &["127.0.0.2"]])]);
    let transport = transport(&told, &far);
    let at = |path: &str| format!("https://rebind.example:{}/{path}", far.tls);
    // One question for a connection: there is no second answer that could be another.
    let answer = get(&transport, &at("bytes/10000000"), &Reach::Public).await.unwrap();
    assert_eq!((answer.status(), told.asked().len()), (200, 1));
    // The connection ends with the answer that nobody wants, so the next call needs another.
    drop(answer);
    assert_eq!(status(&transport, &at(""), &Reach::Public).await, Err(SendError::Network));
    assert_eq!((told.asked().len(), inside.came()), (2, 0));
    // The control: somebody listens there.
    let _ = status(&transport, &at(""), &named(&at(""))).await;
    assert_eq!(inside.came(), 1);
}

#[tokio::test]
async fn g08_a_redirect_is_an_answer_and_leads_nowhere() {
    let far = FarSide::start(&["far.example", "in.example"]).await;
    let inside = Raw::at((INSIDE, far.tls), sized(2)).await;
    let told = Told::new(&[("far.example", &[&[PUBLIC]]), ("in.example", &[&["127.0.0.2"]])]);
    let transport = transport(&told, &far);
    let port = far.tls;
    let here = format!("https://far.example:{port}");
    for to in [
        format!("http://127.0.0.2:{port}/"),
        format!("https://127.0.0.2:{port}/"),
        format!("https://in.example:{port}/"),
        format!("//127.0.0.2:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "/elsewhere".to_owned(),
    ] {
        for reach in [Reach::Public, named(&here)] {
            // As the operator's word the name's address is public as well, and stands for this machine.
            let answer = get(&transport, &format!("{here}/onwards?{to}"), &reach).await.unwrap();
            let location = answer.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
            assert_eq!((answer.status(), location), (302, Some(to.clone())));
        }
    }
    assert_eq!(inside.came(), 0);
    assert!(told.asked().iter().all(|name| name == "far.example"), "{:?}", told.asked());
    // The control: there is somebody to be led to.
    let inside_url = format!("http://127.0.0.2:{port}/");
    assert_eq!(status(&transport, &inside_url, &named(&inside_url)).await, Ok(200));
    assert_eq!(inside.came(), 1);
}

#[tokio::test]
async fn g08_a_connection_of_the_operators_word_serves_nobody_else() {
    let far = FarSide::start(&["far.example"]).await;
    let told = Told::new(&[("far.example", &[&["127.0.0.1"]])]);
    let transport = transport(&told, &far);
    let at = format!("https://far.example:{}/", far.tls);
    for _ in 0..2 {
        let answer = get(&transport, &at, &named(&at)).await.unwrap();
        assert!(!answer.whole().await.unwrap().is_empty());
    }
    // The connection was kept and used again, by the operator's word.
    assert_eq!(told.asked().len(), 1);
    // The same address as a stranger's word is judged for itself, however many connections there are.
    assert_eq!(status(&transport, &at, &Reach::Public).await, Err(SendError::Network));
    assert_eq!(told.asked().len(), 2);
}

#[tokio::test]
async fn g08_what_a_far_side_says_ahead_of_time_answers_nobody() {
    let transport = system();
    let answer = |text: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    // Two answers to one question. The second would be the next caller's, who may be of another account.
    let ahead = Raw::new(Say::Begin(answer("one's") + &answer("meant for the other"))).await;
    for _ in 0..2 {
        let body = get(&transport, &ahead.url(), &named(&ahead.url())).await.unwrap().whole().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&body), "one's");
    }
    assert_eq!(ahead.came(), 2);
    // Nor does an answer that nobody read to its end begin the next one's.
    let long = Raw::new(Say::Endless(HEAD.replace("connection: close\r\n", ""), answer("more"))).await;
    for came in 1..3 {
        let body = get(&transport, &long.url(), &named(&long.url())).await.unwrap().beginning(8).await.unwrap();
        assert_eq!((String::from_utf8_lossy(&body).as_ref(), long.came()), ("HTTP/1.1", came));
    }
}

#[tokio::test]
async fn g08_what_goes_in_the_clear_to_this_machine_does_not_leave_it() {
    let far = FarSide::start(&[]).await;
    let inside = Raw::new(sized(2)).await;
    let at = format!("http://localhost:{}/", inside.port);
    for (answer, expected) in
        [(PUBLIC, Err(SendError::Network)), ("10.0.0.7", Err(SendError::Network)), ("127.0.0.1", Ok(200))]
    {
        let transport = transport(&Told::new(&[("localhost", &[&[answer]])]), &far);
        assert_eq!(status(&transport, &at, &named(&at)).await, expected, "{answer}");
    }
    assert_eq!(inside.came(), 1);
}

#[tokio::test]
async fn g08_a_body_has_a_length_that_it_may_not_pass() {
    let transport = system();
    let bounds = Bounds { body: 1000, ..AMPLE };
    let ask = async |say: Say| {
        let far = Raw::new(say).await;
        transport.send(Request::get(url(&far.url())), &named(&far.url()), bounds).await
    };
    let whole = async |say: Say| ask(say).await.unwrap().whole().await.map(|body| body.len());
    let pieces = async |say: Say| {
        let (mut answer, mut length) = (ask(say).await.unwrap(), 0);
        while let Some(piece) = answer.chunk().await? {
            length += piece.len();
        }
        Ok(length)
    };
    let endless = || Say::Endless(HEAD.to_owned(), "x".repeat(700));
    for (say, expected) in [
        (sized(1000), Ok(1000)),
        (sized(1001), Err(SendError::TooLong)),
        (unsized_(1000), Ok(1000)),
        (unsized_(1001), Err(SendError::TooLong)),
        (endless(), Err(SendError::TooLong)),
    ] {
        assert_eq!((whole(say.clone()).await, pieces(say).await), (expected, expected));
    }
    // One that says it is too long is not even begun.
    let long = Say::Begin("HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n".to_owned());
    assert_eq!(whole(long).await, Err(SendError::TooLong));
    assert_eq!(ask(endless()).await.unwrap().beginning(10).await, Ok(b"xxxxxxxxxx".to_vec()));
    // Nor does a head go on for ever.
    let head = Say::Endless("HTTP/1.1 200 OK\r\n".to_owned(), format!("x-more: {}\r\n", "x".repeat(700)));
    assert_eq!(ask(head).await.err(), Some(SendError::Broken));
    let nonsense = ask(Say::All("SSH-2.0-OpenSSH\r\n".to_owned())).await.err();
    assert_eq!(nonsense, Some(SendError::Broken));
}

#[tokio::test]
async fn g08_a_far_side_that_is_silent_or_slow_does_not_keep_anybody() {
    let transport = system();
    let bounds = Bounds { first_byte: SOON, between: SOON, whole: LATER, body: 1024 };
    let ask = async |say: Say| {
        let far = Raw::new(say).await;
        let answer = transport.send(Request::get(url(&far.url())), &named(&far.url()), bounds).await?;
        answer.whole().await.map(|body| body.len())
    };
    let late = |waited| Err(SendError::TimedOut(waited));
    let pause = Duration::from_millis(25);
    for (say, expected) in [
        (Say::Nothing, late(Waited::FirstByte)),
        (Say::Begin("HTTP/1.1 200 OK\r\n".to_owned()), late(Waited::FirstByte)),
        (Say::Begin(HEAD.to_owned()), late(Waited::FirstByte)),
        (Say::Begin(format!("{HEAD}x")), late(Waited::Between)),
        (Say::Drip(HEAD.to_owned(), usize::MAX, pause), late(Waited::Whole)),
        // A head that drips.
        (Say::Drip("HTTP/1.1 200 OK\r\nx-slow: ".to_owned(), usize::MAX, pause), late(Waited::FirstByte)),
        // The control: this takes longer than the time between two pieces, and comes.
        (Say::Drip(HEAD.to_owned(), 20, pause), Ok(20)),
    ] {
        assert_eq!(ask(say).await, expected);
    }
    // Nor does one that takes the connection and begins no TLS.
    let mute = Raw::new(Say::Nothing).await;
    let at = mute.url().replace("http:", "https:");
    assert_eq!(status(&transport, &at, &named(&at)).await, Err(SendError::TimedOut(Waited::Connect)));
    // A refusal's beginning has the time until the first byte for all of it.
    let far = Raw::new(Say::Drip(HEAD.to_owned(), usize::MAX, pause)).await;
    let answer = transport.send(Request::get(url(&far.url())), &named(&far.url()), bounds).await.unwrap();
    assert_eq!(answer.beginning(1024).await, Err(SendError::TimedOut(Waited::FirstByte)));
}

#[tokio::test]
async fn g08_an_answer_comes_piece_by_piece_as_it_is_sent() {
    let told = Arc::new(Notify::new());
    let far = Raw::new(Say::Halves(format!("{HEAD}one"), "two".to_owned(), Arc::clone(&told))).await;
    let mut answer = get(&system(), &far.url(), &named(&far.url())).await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "one");
    told.notify_one();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "two");
    assert_eq!(answer.chunk().await, Ok(None));
}

/// The variable that makes a call of the test below, in a process that has a proxy in its environment.
const CALLS: &str = "BAILIWICK_TEST_CALLS";

#[tokio::test]
async fn g08_a_proxy_of_the_environment_is_not_asked() {
    if let Ok(at) = std::env::var(CALLS) {
        assert_eq!(status(&system(), &at, &named(&at)).await, Ok(200));
        // The control: a client that is not told otherwise does ask.
        let other = reqwest::Client::builder().tls_backend_preconfigured(tls().unwrap()).build().unwrap();
        assert_eq!(other.get(&at).send().await.unwrap().status(), 418);
        return;
    }
    let far = Raw::new(sized(2)).await;
    let proxy = Raw::new(Say::All("HTTP/1.1 418 a proxy\r\ncontent-length: 0\r\n\r\n".to_owned())).await;
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "transport::tests::g08_a_proxy_of_the_environment_is_not_asked"]);
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        child.env(name, proxy.url());
    }
    for name in ["no_proxy", "NO_PROXY", "REQUEST_METHOD"] {
        child.env_remove(name);
    }
    let output = child.env(CALLS, far.url()).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!((far.came(), proxy.came()), (1, 1));
}
