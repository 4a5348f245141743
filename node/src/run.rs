//! A node as a process: its directory, its ports, its signals.

use std::sync::Arc;

use anyhow::Context as _;
use starling_core::fault;
use starling_gossip::Gossip;
use starling_storage::{DataDirectory, Inheritance, Store};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;
use crate::environment::Environment;
use crate::lifecycle::{Ended, Parts, Running, gossip_parts};
use crate::registering::Anew;

/// Runs a node until it is told to stop, or its store fails, or it has to be started anew: as whom, its directory knows by
/// then.
///
/// # Errors
/// Why it could not start, or had to stop.
pub async fn run(config: Config) -> anyhow::Result<Ended> {
    if fault::ARE_POSSIBLE {
        tracing::warn!("this build has deliberate faults in it, for tests: do not keep data with it");
    }
    let stop = Stop::listen()?;
    // A port that is taken is found before the store is opened: each opening begins a run.
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("cannot listen on {} (TCP)", config.listen))?;
    let environment = Environment::production();
    let store = open_store(&config, &environment).await?;
    let gossip = start_gossip(&config, &environment, &store).await?;
    let (path, held) = (config.data_dir.clone(), Arc::clone(&store));
    let parts = Parts { config, environment, store, gossip, listener: Box::new(listener) };
    let ended = Running::start(parts).run_until(stop.asked()).await?;
    match &ended {
        Ended::Superseded(Anew::EmptyDirectory(identity)) => {
            DataDirectory::begin_anew(&path, identity, Inheritance::Nothing)?;
        }
        Ended::Superseded(Anew::SalvagedDirectory(identity)) => {
            DataDirectory::begin_anew(&path, identity, Inheritance::Objects)?;
        }
        Ended::Superseded(Anew::SameDirectory(_)) | Ended::Stopped => {}
    }
    // Until here nobody else may open the directory.
    drop(held);
    Ok(ended)
}

async fn open_store(config: &Config, environment: &Environment) -> anyhow::Result<Arc<Store>> {
    let (path, name) = (config.data_dir.clone(), config.name.clone());
    let (rocks, limits) = (config.rocks, config.store);
    let store = environment.block(move || Store::open_directory(&path, &name, rocks, limits)).await??;
    Ok(Arc::new(store))
}

async fn start_gossip(config: &Config, environment: &Environment, store: &Store) -> anyhow::Result<Gossip> {
    let (settings, announcement) = gossip_parts(config, store, &*environment.wall).await?;
    Gossip::start(settings, announcement).await.with_context(|| format!("cannot gossip on {} (UDP)", config.listen))
}

/// The signals that ask a node to stop.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> anyhow::Result<Stop> {
        Ok(Stop { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn asked(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("asked to stop"),
            _ = self.interrupt.recv() => tracing::info!("interrupted; stopping"),
        }
    }
}
