//! A server; see service.rs.

mod service;

use clap::Parser;

#[derive(Parser, Debug)]
struct Options {
    #[arg(long, default_value = "127.0.0.1:8123")]
    listen: String,
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let listener = tokio::net::TcpListener::bind(&options.listen).await.unwrap();
    axum::serve(listener, service::routes()).await.unwrap();
}
