//! Plain blocking exchanges: connections that are held open while their memory is measured, and the single request of a check.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::Way;
use crate::answer::{Answer, Seen};
use crate::webhook::{Request, Webhooks};

const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// Opens `connections`, one answered webhook each, prints `ready`, waits for the end of standard input and prints how many
/// are still open: a proxy that saves memory by hanging up shows.
pub(crate) fn hold(way: Way, mut webhooks: Webhooks, connections: usize) -> anyhow::Result<()> {
    let mut held = Vec::with_capacity(connections);
    for _ in 0..connections {
        held.push(exchange(way, &mut webhooks)?.0);
    }
    println!("ready");
    io::stdout().flush()?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    println!("{}", held.iter().filter(|socket| is_open(socket)).count());
    Ok(())
}

/// The status that one webhook is answered with.
pub(crate) fn status_of_one(way: Way, mut webhooks: Webhooks) -> anyhow::Result<u16> {
    Ok(exchange(way, &mut webhooks)?.1)
}

fn exchange(way: Way, webhooks: &mut Webhooks) -> anyhow::Result<(TcpStream, u16)> {
    let mut socket = way.connect().context("connect")?;
    socket.set_read_timeout(Some(ANSWER_TIME_MAX))?;
    socket.set_write_timeout(Some(ANSWER_TIME_MAX))?;
    let (mut request, mut answer, mut buffer) = (Request::default(), Answer::default(), [0; 4096]);
    webhooks.write_next(&mut request)?;
    answer.expect(request.stream().is_some());
    ensure!(
        webhooks.send(&mut request, &mut socket)?,
        "the request was not taken in time"
    );
    loop {
        let bytes = socket.read(&mut buffer).context("answer")?;
        if bytes == 0 {
            bail!("hung up before the answer was complete");
        }
        if let Some(Seen::Answer { status, .. }) = answer.push(&buffer[..bytes]) {
            return Ok((socket, status));
        }
    }
}

fn is_open(socket: &TcpStream) -> bool {
    let quiet = socket.set_nonblocking(true).and_then(|()| socket.peek(&mut [0]));
    quiet.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}
