mod hostile;
mod net;
mod rules;
mod sim;
