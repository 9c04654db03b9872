// Go and gorilla/websocket: one PreparedMessage per frame, one goroutine that writes per viewer.
//
// Usage: gorilla PORT (on 127.0.0.1).
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/gorilla/websocket"
)

// A viewer that is this many frames behind loses the next.
const queueLength = 64

type message struct {
	Type     string `json:"type"`
	StreamID string `json:"stream_id"`
}

type stream struct {
	mutex   sync.Mutex
	viewers map[chan *websocket.PreparedMessage]struct{}
}

var (
	upgrader = websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	mutex    sync.Mutex
	streams  = map[string]*stream{}
)

func publish(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	var first message
	if conn.ReadJSON(&first) != nil {
		return
	}
	s := &stream{viewers: map[chan *websocket.PreparedMessage]struct{}{}}
	mutex.Lock()
	streams[first.StreamID] = s
	mutex.Unlock()
	conn.WriteJSON(message{"registered", first.StreamID})
	for {
		kind, data, err := conn.ReadMessage()
		if err != nil {
			return
		}
		frame, err := websocket.NewPreparedMessage(kind, data)
		if err != nil {
			return
		}
		s.mutex.Lock()
		for queue := range s.viewers {
			select {
			case queue <- frame:
			default:
			}
		}
		s.mutex.Unlock()
	}
}

func view(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	var first message
	if conn.ReadJSON(&first) != nil {
		return
	}
	id := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	mutex.Lock()
	s := streams[id]
	mutex.Unlock()
	if s == nil {
		return
	}
	queue := make(chan *websocket.PreparedMessage, queueLength)
	s.mutex.Lock()
	s.viewers[queue] = struct{}{}
	s.mutex.Unlock()
	conn.WriteJSON(message{"subscribed", id})
	gone := make(chan struct{})
	go func() {
		for {
			if _, _, err := conn.NextReader(); err != nil {
				close(gone)
				return
			}
		}
	}()
	for {
		select {
		case frame := <-queue:
			if conn.WritePreparedMessage(frame) == nil {
				continue
			}
		case <-gone:
		}
		break
	}
	s.mutex.Lock()
	delete(s.viewers, queue)
	s.mutex.Unlock()
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gorilla PORT")
		os.Exit(2)
	}
	http.HandleFunc("/ws/stream", publish)
	http.HandleFunc("/ws/view/", view)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
