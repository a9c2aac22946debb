//! A WebSocket chat over several workers: what one client says reaches the clients of every worker.
//!
//! Each line goes out as a datagram to a multicast group of the loopback interface, which every worker has
//! joined. On several machines a broker takes its place.
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::{Router, routing::get};
use ferricorn::{App, BoxError, Setting, WorkerContext};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::broadcast;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 70, 67);
const LINE_MAX: usize = 1000;

struct Chat;

#[derive(serde::Deserialize)]
struct Table {
    port: u16,
}

impl App for Chat {
    const NAME: &'static str = "chat";
    const SETTINGS: &'static [Setting] =
        &[Setting::integer("bus.port", "5070", 1..=65_535, "The bus's UDP port on 127.0.0.1.")];

    async fn router(&self, worker: &WorkerContext) -> Result<Router, BoxError> {
        let Table { port } = worker.config().section("bus")?;
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // Every worker has the same address, and gets every datagram to the group.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddrV4::new(GROUP, port).into())?;
        socket.join_multicast_v4(&GROUP, &Ipv4Addr::LOCALHOST)?;
        socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST)?;
        socket.set_multicast_loop_v4(true)?;
        let bus = Arc::new(UdpSocket::from_std(socket.into())?);
        let (lines, _) = broadcast::channel(100);
        let receiving = bus.clone();
        let here = lines.clone();
        tokio::spawn(async move {
            let mut line = [0; LINE_MAX];
            while let Ok(length) = receiving.recv(&mut line).await {
                let _nobody_here = here.send(String::from_utf8_lossy(&line[..length]).into_owned());
            }
        });
        let bus: Bus = (bus, SocketAddrV4::new(GROUP, port));
        Ok(Router::new().route("/chat", get(join)).with_state((bus, lines)))
    }
}

type Bus = (Arc<UdpSocket>, SocketAddrV4);
type Lines = State<(Bus, broadcast::Sender<String>)>;

async fn join(State((bus, lines)): Lines, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(move |socket| talk(socket, bus, lines.subscribe()))
}

async fn talk(mut socket: WebSocket, bus: Bus, mut lines: broadcast::Receiver<String>) {
    loop {
        let goes_on = tokio::select! {
            Ok(line) = lines.recv() => socket.send(Message::from(line)).await.is_ok(),
            received = socket.recv() => match received {
                Some(Ok(Message::Text(text))) => bus.0.send_to(text.as_bytes(), bus.1).await.is_ok(),
                // It is answered when the next message is asked for.
                Some(Ok(_)) => true,
                // A client that has left is seen here: a drain waits for this task.
                Some(Err(_)) | None => false,
            },
        };
        if !goes_on {
            return;
        }
    }
}

fn main() -> std::process::ExitCode {
    ferricorn::main(Chat)
}
