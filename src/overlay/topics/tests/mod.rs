mod hostile;
mod sim;
mod swarm;
