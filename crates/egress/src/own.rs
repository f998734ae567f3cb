//! The addresses of the host itself. Public ones are as much its own as the loopback's: what listens there trusts
//! whoever comes from the same machine, or is not meant for a sandbox.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};

/// The kernel's routes of IPv4, those to the host itself among them (proc(5)).
const FOUR: &str = "/proc/net/fib_trie";
/// The addresses of IPv6. Not there where the kernel has none.
const SIX: &str = "/proc/net/if_inet6";
/// How long what was read is believed: an address that the host gets is its own so soon.
const BELIEVED: Duration = Duration::from_secs(2);

/// The addresses of the host, as the kernel says at the moment.
///
/// The files are opened once, before the gate gives up the right to open them, and read again and again.
#[derive(Debug, Clone)]
pub struct OwnAddresses(Arc<Source>);

#[derive(Debug)]
struct Source {
    four: File,
    six: Option<File>,
    read: Mutex<Option<(Instant, Vec<IpNet>)>>,
}

impl OwnAddresses {
    /// Those of this host and network namespace.
    ///
    /// # Errors
    /// If the kernel does not tell them; then nobody can keep to them.
    pub fn of_host() -> io::Result<Self> {
        Self::from_files(Path::new(FOUR), Path::new(SIX))
    }

    fn from_files(four: &Path, six: &Path) -> io::Result<Self> {
        let six = match File::open(six) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened?),
        };
        let source = Source { four: File::open(four)?, six, read: Mutex::default() };
        source.now()?;
        Ok(Self(Arc::new(source)))
    }

    /// Whether an address is the host's. Where nobody can say, it is.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        if address.is_ipv6() && self.0.six.is_none() {
            return true;
        }
        let mut read = self.0.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.as_ref().is_none_or(|(at, _)| at.elapsed() >= BELIEVED) {
            *read = self.0.now().ok().map(|own| (Instant::now(), own));
        }
        read.as_ref().is_none_or(|(_, own)| own.iter().any(|subnet| subnet.contains(&address)))
    }
}

impl Source {
    fn now(&self) -> io::Result<Vec<IpNet>> {
        let mut own = four(&whole(&self.four)?);
        if let Some(file) = &self.six {
            own.extend(six(&whole(file)?));
        }
        Ok(own)
    }
}

/// The whole of a file that the kernel writes anew for whoever begins at its beginning.
fn whole(file: &File) -> io::Result<String> {
    let mut text = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        let length = file.read_at(&mut piece, text.len() as u64)?;
        match piece.get(..length) {
            Some([]) | None => break,
            Some(more) => text.extend_from_slice(more),
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Where the kernel delivers to itself: `|-- ADDRESS`, and beneath it `/LENGTH host LOCAL`.
fn four(text: &str) -> Vec<IpNet> {
    let mut own = Vec::new();
    let mut leaf = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse::<Ipv4Addr>().ok();
            continue;
        }
        let mut words = line.split_whitespace();
        let length = words.next().and_then(|word| word.strip_prefix('/')).and_then(|digits| digits.parse().ok());
        if let (Some(leaf), Some(length), Some("LOCAL")) = (leaf, length, words.nth(1)) {
            own.extend(Ipv4Net::new(leaf, length).ok().map(IpNet::V4));
        }
    }
    own
}

/// One address a line, in hexadecimal, then what belongs to it.
fn six(text: &str) -> Vec<IpNet> {
    let first = text.lines().filter_map(|line| line.split_whitespace().next());
    let numbers = first.filter(|word| word.len() == 32).filter_map(|word| u128::from_str_radix(word, 16).ok());
    numbers.map(|number| IpNet::from(IpAddr::V6(Ipv6Addr::from(number)))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub(crate) mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A host with one address, 8.8.4.4, as the kernel would say it.
    pub(crate) const ONE: &str = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     \
        |-- 8.8.4.0\n        /24 link UNICAST\n     |-- 8.8.4.4\n        /32 host LOCAL\n     |-- 8.8.4.255\n        \
        /32 link BROADCAST\n";

    /// A host of which these files tell. They are there until the folder is dropped.
    pub(crate) fn told(name: &str, four: &str, six: &str) -> (PathBuf, OwnAddresses) {
        let folder = std::env::temp_dir().join(format!("bw-own-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("four"), four).unwrap();
        std::fs::write(folder.join("six"), six).unwrap();
        let own = OwnAddresses::from_files(&folder.join("four"), &folder.join("six")).unwrap();
        (folder, own)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn g03_the_kernel_says_which_addresses_are_the_hosts() {
        let six =
            "20010db8000000000000000000000007 02 40 00 80     eth0\n00000000000000000000000000000001 01 80 10 80 lo\n";
        let (folder, own) = told("says", ONE, six);
        for text in ["8.8.4.4", "2001:db8::7", "::1"] {
            assert!(own.has(address(text)), "{text}");
        }
        for text in ["8.8.4.5", "8.8.4.255", "0.0.0.1", "2001:db8::8"] {
            assert!(!own.has(address(text)), "{text}");
        }
        // One that it gets later is its own as well, without a new file.
        std::fs::write(folder.join("four"), ONE.replace("8.8.4.4", "8.8.4.5")).unwrap();
        *own.0.read.lock().unwrap() = None;
        assert!(own.has(address("8.8.4.5")) && !own.has(address("8.8.4.4")));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn g03_a_host_that_does_not_say_owns_everything() {
        let (folder, own) = told("silent", ONE, "");
        std::fs::remove_file(folder.join("six")).unwrap();
        let four_alone = OwnAddresses::from_files(&folder.join("four"), &folder.join("six")).unwrap();
        assert!(!own.has(address("2001:db8::8")) && four_alone.has(address("2001:db8::8")));
        assert!(OwnAddresses::from_files(&folder.join("no"), &folder.join("no")).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
        // This host, whose loopback is its own.
        let here = OwnAddresses::of_host().unwrap();
        assert!(here.has(address("127.0.0.1")));
    }
}
