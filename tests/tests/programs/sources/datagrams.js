// Asks a server again and again over one UDP socket, and prints its answers. Arguments: address, port, how.
const dgram = require('node:dgram');
const [address, port, how] = [process.argv[2], Number(process.argv[3]), process.argv[4]];

function ask(socket) {
  const done = (error) => error && console.error(String(error));
  if (how === 'unconnected') socket.send('question', port, address, done);
  else socket.send('question', done);
}

const socket = dgram.createSocket('udp4');
socket.on('error', (error) => console.error(String(error)));
socket.on('message', (message, from) => {
  // An answer from another address than the one that was asked is none.
  if (from.address === address && from.port === port) console.log(String(message));
});
const begin = () => setInterval(() => {
  try { ask(socket); } catch (error) { console.error(String(error)); }
}, 50);
if (how === 'unconnected') begin();
else socket.connect(port, address, begin);
