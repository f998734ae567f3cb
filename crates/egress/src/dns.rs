//! The resolver that a sandbox sees. It knows the names that the sandbox may reach, each at an address of the
//! sandbox's own that stands for it, and nothing else (RFC 1035). It asks nobody, so no name carries anything out.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bailiwick_types::host::HostName;
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::gate::Scene;
use crate::journal::{Kind, Line};
use crate::refused::Refused;

/// Longest question, bytes. One name and its options have far fewer.
const LONGEST: usize = 1232;
/// How long an answer may be believed, seconds: as long as the sandbox lives it stays true.
const BELIEVED: u32 = 60;

/// Answers questions that come as datagrams.
pub(crate) async fn datagrams(scene: Arc<Scene>, socket: UdpSocket) {
    let mut question = [0; LONGEST];
    loop {
        // An error is about a datagram of before, whose sender has gone.
        let Ok((length, from)) = socket.recv_from(&mut question).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let asked = question.get(..length).unwrap_or_default();
        if let Some(answer) = answer(&scene, asked).await {
            send(&socket, &answer, from).await;
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], to: SocketAddr) {
    let _ = socket.send_to(answer, to).await;
}

/// Answers questions that come one after the other on a connection (RFC 7766).
pub(crate) async fn stream(scene: Arc<Scene>, mut stream: TcpStream) {
    while let Ok(length) = stream.read_u16().await {
        let mut question = vec![0; usize::from(length).min(LONGEST)];
        if usize::from(length) > LONGEST || stream.read_exact(&mut question).await.is_err() {
            return;
        }
        let Some(answer) = answer(&scene, &question).await else { return };
        let Ok(length) = u16::try_from(answer.len()) else { return };
        if stream.write_u16(length).await.is_err() || stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// The answer to a question; nothing to what is none.
async fn answer(scene: &Scene, question: &[u8]) -> Option<Vec<u8>> {
    let asked = Packet::parse(question).ok().filter(|packet| !packet.has_flags(PacketFlag::RESPONSE))?;
    let mut reply = Packet::new_reply(asked.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if asked.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    let [one] = asked.questions.as_slice() else {
        *reply.rcode_mut() = RCODE::FormatError;
        return reply.build_bytes_vec().ok();
    };
    reply.questions.push(one.clone());
    let found = if scene.meter.admits_one() { found(scene, &one.qname.to_string()) } else { Err(Refused::Limit) };
    match found {
        Ok(address) if matches!(one.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY) => {
            // Of all else that one can ask about a name there is nothing: no address of IPv6, no hints for HTTPS.
            if matches!(one.qtype, QTYPE::TYPE(TYPE::A) | QTYPE::ANY) {
                let data = RData::A(A { address: u32::from(address) });
                reply.answers.push(ResourceRecord::new(one.qname.clone(), CLASS::IN, BELIEVED, data));
            }
        }
        Ok(_) => *reply.rcode_mut() = RCODE::NotImplemented,
        Err(why) => {
            let name: String = one.qname.to_string().chars().take(253).collect();
            scene.journal.write(Line::new(Kind::Name, name, 0).refused(why)).await;
            *reply.rcode_mut() = if why == Refused::Limit { RCODE::Refused } else { RCODE::NameError };
        }
    }
    reply.build_bytes_vec_compressed().ok()
}

fn found(scene: &Scene, name: &str) -> Result<Ipv4Addr, Refused> {
    let name = HostName::parse(name).map_err(|_| Refused::Name)?;
    if !scene.policy.knows(&name) {
        return Err(Refused::Host);
    }
    scene.stand().for_name(&name)
}
