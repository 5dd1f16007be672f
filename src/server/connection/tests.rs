//! Connections under strain.

use tokio::net::TcpListener;
use tokio::task::{JoinHandle, yield_now};

use super::super::frames::Reading;
use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::gateway::Strain;

/// A connection under strain, the other end of it, and where it lines up.
async fn under_strain(clock: &ManualClock) -> (Connection, TcpStream, Arc<Turnstile>) {
    let clock = clock.clock();
    let strain = Strain::new(&clock);
    strain.feel(clock.moment().plus(Duration::from_secs(3)));
    let turnstile = Turnstile::new(strain);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, client) = listener.accept().await.unwrap();
    (Connection::tcp(stream, client, &turnstile), other, turnstile)
}

/// Reads until there is nothing to be read, or it is not the connection's turn; how much that was.
async fn drink(connection: &mut Connection) -> usize {
    let mut read = 0;
    poll_fn(|context| {
        let mut space = [0; 8 << 10];
        loop {
            let mut space = ReadBuf::new(&mut space);
            match Pin::new(&mut *connection).poll_read(context, &mut space) {
                Poll::Ready(filled) => filled.unwrap(),
                Poll::Pending => return Poll::Ready(()),
            }
            read += space.filled().len();
        }
    })
    .await;
    read
}

/// Resolves when the connection is in line.
async fn lined_up(connection: &mut Connection) {
    poll_fn(|context| {
        assert!(connection.poll_turn(context).is_pending());
        match connection.is_in_line() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

#[tokio::test]
async fn under_strain_a_connection_lines_up_when_something_has_arrived() {
    // Idle connections in line would make it as long as there are connections.
    let (mut connection, mut other, turnstile) = under_strain(&ManualClock::at(UnixMillis(0))).await;
    // Tokio takes it for granted that a new connection has something to say.
    assert_eq!(drink(&mut connection).await, 0);
    let waits = poll_fn(|context| Poll::Ready(connection.poll_turn(context).is_pending())).await;
    assert!(waits && !connection.is_in_line() && !turnstile.let_in());
    other.write_all(b"x").await.unwrap();
    lined_up(&mut connection).await;
    assert!(turnstile.let_in());
    poll_fn(|context| connection.poll_turn(context)).await;
    assert!(!connection.is_in_line());
    assert_eq!(drink(&mut connection).await, 1);
}

/// A connection of HTTP/2 under strain on which `frames` arrive in the end, the writing of them, and where it lines up.
async fn http_2(reading: &Arc<Reading>, frames: Vec<u8>) -> (Connection, JoinHandle<io::Result<()>>, Arc<Turnstile>) {
    let clock = ManualClock::at(UnixMillis(0));
    let (mut connection, mut other, turnstile) = under_strain(&clock).await;
    connection.count(Frames::new(&clock.clock(), reading, false));
    let all = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frames].concat();
    let sending = tokio::spawn(async move { other.write_all(&all).await });
    (connection, sending, turnstile)
}

/// A frame of a body.
fn data(length: u16) -> Vec<u8> {
    let [high, low] = length.to_be_bytes();
    [&[0, high, low, 0, 0, 0, 0, 0, 1][..], &vec![0; usize::from(length)]].concat()
}

#[tokio::test]
async fn under_strain_http_2_is_read_so_much_at_a_time() {
    // One connection that sends without end would have the processor to itself; and requests that were taken apart
    // before their turn find their memory cold when it comes. A frame that came in pieces would be as cold.
    for (length, in_a_turn) in [(100, 19), (1000, 3), (5000, 1)] {
        let frame = data(length);
        let (mut connection, sending, turnstile) = http_2(&Arc::default(), frame.repeat(4 * in_a_turn)).await;
        sending.await.unwrap().unwrap();
        let mut head = 24;
        for turn in 0..4 {
            lined_up(&mut connection).await;
            assert_eq!(drink(&mut connection).await, 0, "out of turn");
            assert!(turnstile.let_in());
            let read = drink(&mut connection).await - std::mem::take(&mut head);
            assert_eq!(read, in_a_turn * frame.len(), "turn {turn}, frames of {length}");
        }
    }
}

#[tokio::test]
async fn under_strain_long_bodies_have_turns_as_long_as_ever() {
    // A megabyte in pieces of two kilobytes would be in line five hundred times, and late in the end.
    let (mut connection, sending, turnstile) = http_2(&Arc::default(), data(16_384).repeat(8)).await;
    sending.await.unwrap().unwrap();
    let mut left = 24 + 8 * (9 + 16_384);
    while left > 0 {
        lined_up(&mut connection).await;
        assert!(turnstile.let_in());
        let read = drink(&mut connection).await;
        assert_eq!(read, left.min(TURN_BYTES));
        left -= read;
    }
}

#[tokio::test]
async fn under_strain_a_frame_without_end_has_no_turn_without_end() {
    // Whoever takes frames apart is to refuse it, and cannot as long as nobody else has a turn.
    let endless = [&[255, 255, 255, 0, 0, 0, 0, 0, 1][..], &[0; 256 << 10]].concat();
    let (mut connection, sending, turnstile) = http_2(&Arc::default(), endless).await;
    let mut turns = 0;
    while !sending.is_finished() {
        lined_up(&mut connection).await;
        assert!(turnstile.let_in());
        let read = drink(&mut connection).await;
        assert!(read <= TURN_BYTES, "{read} in one turn");
        turns += 1;
    }
    assert!(turns > 1);
}

#[tokio::test]
async fn what_waits_for_its_turn_has_the_rest_of_its_connection_wait() {
    // Else a connection has two places in line, and reads ahead what gets cold.
    let reading = Arc::default();
    let (mut connection, sending, turnstile) = http_2(&reading, data(1 << 14)).await;
    sending.await.unwrap().unwrap();
    let (one, other) = (reading.waits(), reading.waits());
    let unread = tokio::spawn(async move {
        poll_fn(|context| {
            let mut space = [0; 1];
            assert!(
                Pin::new(&mut connection)
                    .poll_read(context, &mut ReadBuf::new(&mut space))
                    .is_pending()
            );
            match connection.is_in_line() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        connection
    });
    drop(one);
    for _ in 0..10 {
        yield_now().await;
    }
    assert!(!unread.is_finished() && !turnstile.let_in());
    drop(other);
    let mut connection = unread.await.unwrap();
    assert!(turnstile.let_in());
    assert!(drink(&mut connection).await > 0);
}
