use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, Mutex, RwLock};

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, PartialOrd)]
pub struct Item {
    id: u64,
    name: String,
    tags: Vec<Tag>,
    price: Option<Price>,
}

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tag {
    New,
    Sale { percent: u8 },
    Word(String),
}

#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Price {
    amount: f64,
    currency: Currency,
}

#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Currency {
    Eur,
    Usd,
}

#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct Order {
    number: u32,
    lines: BTreeMap<u64, Line>,
    notes: HashMap<String, Vec<String>>,
    state: Option<Box<Order>>,
}

#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct Line {
    item: Item,
    count: u32,
}

#[derive(Deserialize, Debug)]
pub struct Page {
    from: Option<usize>,
    count: Option<usize>,
    like: Option<String>,
}

#[derive(Debug, Serialize)]
pub enum Problem {
    Missing(u64),
    Pattern(String),
    Format(String),
}

#[derive(Default)]
pub struct Store {
    items: RwLock<BTreeMap<u64, Item>>,
    orders: Mutex<VecDeque<Order>>,
    tags: Mutex<HashMap<Tag, BTreeSet<u64>>>,
}

pub fn routes() -> Router {
    Router::new()
        .route("/item/:id", get(item).put(change))
        .route("/items", get(items))
        .route("/order", post(order))
        .route("/tags", get(tags))
        .with_state(Arc::new(Store::default()))
}

async fn item(State(s): State<Arc<Store>>, Path(id): Path<u64>) -> Json<Result<Item, Problem>> {
    Json(s.items.read().await.get(&id).cloned().ok_or(Problem::Missing(id)))
}

async fn change(State(s): State<Arc<Store>>, Path(id): Path<u64>, Json(i): Json<Item>) -> Json<Option<Item>> {
    let mut tags = s.tags.lock().await;
    for t in &i.tags {
        tags.entry(t.clone()).or_default().insert(id);
    }
    Json(s.items.write().await.insert(id, i))
}

async fn items(State(s): State<Arc<Store>>, Query(p): Query<Page>) -> Json<Result<Vec<Item>, Problem>> {
    let like = match p.like.as_deref().map(regex::Regex::new).transpose() {
        Ok(like) => like,
        Err(e) => return Json(Err(Problem::Pattern(e.to_string()))),
    };
    let all = s.items.read().await;
    let mut found: Vec<Item> = all
        .values()
        .filter(|i| like.as_ref().is_none_or(|l| l.is_match(&i.name)))
        .skip(p.from.unwrap_or(0))
        .take(p.count.unwrap_or(20))
        .cloned()
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name).then(b.id.cmp(&a.id)));
    found.dedup_by_key(|i| i.id);
    Json(Ok(found))
}

async fn order(State(s): State<Arc<Store>>, body: String) -> Json<Result<f64, Problem>> {
    let order: Order = match serde_json::from_str(&body) {
        Ok(o) => o,
        Err(e) => return Json(Err(Problem::Format(e.to_string()))),
    };
    let (send, mut receive) = mpsc::channel::<Line>(8);
    let lines: Vec<Line> = order.lines.values().cloned().collect();
    let sender = tokio::spawn(async move {
        for l in lines {
            if send.send(l).await.is_err() {
                break;
            }
        }
    });
    let mut total = 0.0;
    while let Some(l) = receive.recv().await {
        total += price(&l);
    }
    let _ = sender.await;
    s.orders.lock().await.push_back(order);
    Json(Ok(total))
}

async fn tags(State(s): State<Arc<Store>>) -> Json<Vec<(Tag, Vec<u64>)>> {
    let tags = s.tags.lock().await;
    let mut all: Vec<_> = tags.iter().map(|(t, ids)| (t.clone(), ids.iter().copied().collect())).collect();
    all.sort();
    Json(all)
}

#[inline(never)]
pub fn price(l: &Line) -> f64 {
    l.item.price.map_or(0.0, |p| p.amount) * f64::from(l.count)
}
