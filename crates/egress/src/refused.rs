//! Why something may not leave.

use http::StatusCode;

/// Why something may not leave. Each has a code that never changes, for the record, and a sentence for whoever
/// asked, who is an agent and should do something else next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// What was named cannot be the name of a host.
    #[error("that is not the name of a host: write it without user, path and escapes")]
    Name,
    /// No rule has the host and port.
    #[error("this sandbox may not reach that host: only an admin can allow it, in the agent's `egress`")]
    Host,
    /// An address that no rule names, instead of a name.
    #[error("this sandbox reaches hosts by their names alone: use the name")]
    Literal,
    /// The name leads to an address that is not public.
    #[error("the name leads to an address that is not public")]
    NotPublic,
    /// The name leads to an address of the gate's own host.
    #[error("the name leads to an address of the machine on which this sandbox runs")]
    OwnAddress,
    /// An address that the policy refuses.
    #[error("the name leads to an address that this sandbox may not reach")]
    Subnet,
    /// No rule of the host fits the request.
    #[error("of that host this sandbox may only reach what the agent's `egress` describes, and this is not it")]
    Rule,
    /// The path can be read in two ways.
    #[error("the path can be read in two ways: write it without dot segments and doubled slashes")]
    Path,
    /// The TLS connection names another host than the one that was asked for.
    #[error("the TLS connection has to name the host that was asked for (SNI), and names another or none")]
    Sni,
    /// The request names another host than the connection.
    #[error("the request has to name the host of its connection, once")]
    Mismatch,
    /// Neither TLS nor anything else that may go to this port.
    #[error("only TLS may go to that port")]
    NotTls,
    /// A rule puts a secret into the request, and the connection would show it.
    #[error("this host gets a secret of the agent's, which goes by https alone")]
    Plain,
    /// The secret is not there, or not for this agent and host.
    #[error("the request needs a secret that this agent has not been granted: ask an admin")]
    Secret,
    /// A body that a rule has to see whole, and that is too long for that.
    #[error("a rule of this host reads requests whole: their bodies may have a mebibyte")]
    BodyTooLarge,
    /// A body that a rule has to search, and that is compressed.
    #[error("a rule of this host searches requests: send their bodies without a content encoding")]
    BodyEncoded,
    /// The answer comes in a form that cannot be searched for the secret.
    #[error("the host answered in an encoding that was not asked for, and it may hold the secret")]
    Encoded,
    /// There is no such name, as far as the server can find out.
    #[error("the name leads nowhere")]
    NoAddress,
    /// Nobody answers there.
    #[error("the host cannot be reached")]
    Unreachable,
    /// The far side's certificate, or its TLS.
    #[error("the host has no certificate for its name, or speaks no TLS that this server does")]
    UpstreamTls,
    /// The far side ended or broke the connection.
    #[error("the host broke off the connection")]
    Broken,
    /// Whoever asked broke it off before there was an answer, or was ended.
    #[error("the request was broken off before its answer came")]
    BrokenOff,
    /// More than a sandbox may use.
    #[error("this sandbox has used up what it may send and receive: wait, or do less at once")]
    Limit,
    /// The request cannot be read.
    #[error("that is no request that this proxy can pass on")]
    Request,
}

impl Refused {
    /// The stable word.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Name => "name_invalid",
            Self::Host => "host_not_allowed",
            Self::Literal => "address_not_named",
            Self::NotPublic => "address_not_public",
            Self::OwnAddress => "address_of_host",
            Self::Subnet => "subnet_denied",
            Self::Rule => "no_rule",
            Self::Path => "path_ambiguous",
            Self::Sni => "sni_mismatch",
            Self::Mismatch => "host_mismatch",
            Self::NotTls => "not_tls",
            Self::Plain => "plain_http",
            Self::Secret => "no_secret",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyEncoded => "body_encoded",
            Self::Encoded => "encoded_answer",
            Self::NoAddress => "name_unknown",
            Self::Unreachable => "upstream_unreachable",
            Self::UpstreamTls => "upstream_tls",
            Self::Broken => "upstream_broken",
            Self::BrokenOff => "broken_off",
            Self::Limit => "limit_reached",
            Self::Request => "request_invalid",
        }
    }

    /// What a stable word means; nothing for `allowed`, or a word that is none.
    pub fn of_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|refused| refused.code() == code)
    }

    const ALL: [Self; 23] = [
        Self::Name,
        Self::Host,
        Self::Literal,
        Self::NotPublic,
        Self::OwnAddress,
        Self::Subnet,
        Self::Rule,
        Self::Path,
        Self::Sni,
        Self::Mismatch,
        Self::NotTls,
        Self::Plain,
        Self::Secret,
        Self::BodyTooLarge,
        Self::BodyEncoded,
        Self::Encoded,
        Self::NoAddress,
        Self::Unreachable,
        Self::UpstreamTls,
        Self::Broken,
        Self::BrokenOff,
        Self::Limit,
        Self::Request,
    ];

    /// What HTTP says of it.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::Name | Self::Path | Self::Request | Self::BrokenOff => StatusCode::BAD_REQUEST,
            Self::Mismatch | Self::Sni => StatusCode::MISDIRECTED_REQUEST,
            Self::NoAddress | Self::Unreachable | Self::UpstreamTls | Self::Broken | Self::Encoded => {
                StatusCode::BAD_GATEWAY
            }
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyEncoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Limit => StatusCode::TOO_MANY_REQUESTS,
            Self::Host
            | Self::Literal
            | Self::NotPublic
            | Self::OwnAddress
            | Self::Subnet
            | Self::Rule
            | Self::NotTls
            | Self::Plain
            | Self::Secret => StatusCode::FORBIDDEN,
        }
    }
}
