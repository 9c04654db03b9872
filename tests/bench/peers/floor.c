/* The floor: the least that a relay in user space can do on one thread.
 *
 * epoll (level-triggered), one recv, unmask in place, one send per viewer. The server's frame header is written over the client's
 * mask, so that header and payload go out in one piece without a copy. Nothing is checked that the kernel does not force upon us: this
 * is a yardstick, not a server.
 *
 * Usage: floor PORT (on 127.0.0.1). It knows the benchmark's paths, /ws/stream and /ws/view/ID, and ids of a streamer's own.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RECV_SIZE = 256 * 1024, WAITING_MAX = 4 * 1024 * 1024, EVENTS = 256, ID_SIZE = 65, HTTP_MAX = 8192, HEADER_MAX = 14 };
enum role { HTTP, NEW_STREAMER, NEW_VIEWER, STREAMER, VIEWER };

struct conn {
    int fd; /* -1: closed */
    enum role role;
    char id[ID_SIZE];
    /* The way in: a message, or an HTTP request, that has come in part. */
    uint8_t *part;
    size_t have, need, room;
    /* The way out: bytes that the kernel refused. */
    uint8_t *waiting;
    size_t waiting_start, waiting_size;
    /* A streamer's viewers; a viewer's streamer. */
    struct conn **viewers;
    size_t viewer_count, viewer_room;
    struct conn *streamer;
    struct conn *next; /* among the streamers, or among the dead */
};

static int poller;
static struct conn *streamers, *dead;
static uint8_t shared[RECV_SIZE];

static uint32_t rotate(uint32_t word, int bits) { return word << bits | word >> (32 - bits); }

/* SHA-1 (RFC 3174) of at most 119 bytes. */
static void sha1(const char *text, size_t size, uint8_t digest[20])
{
    uint8_t data[128] = {0};
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    size_t blocks = (size + 9 + 63) / 64;
    memcpy(data, text, size);
    data[size] = 0x80;
    for (int i = 0; i < 4; i++)
        data[blocks * 64 - 1 - i] = (uint8_t)(size * 8 >> 8 * i);
    for (size_t block = 0; block < blocks; block++) {
        uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 16; i++) {
            memcpy(&w[i], data + block * 64 + i * 4, 4);
            w[i] = ntohl(w[i]);
        }
        for (int i = 16; i < 80; i++)
            w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        for (int i = 0; i < 80; i++) {
            uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 ? b ^ c ^ d : i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
            uint32_t k = i < 20 ? 0x5A827999 : i < 40 ? 0x6ED9EBA1 : i < 60 ? 0x8F1BBCDC : 0xCA62C1D6;
            uint32_t t = rotate(a, 5) + f + e + k + w[i];
            e = d, d = c, c = rotate(b, 30), b = a, a = t;
        }
        h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
    }
    for (int i = 0; i < 20; i++)
        digest[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

/* Base64 of 20 bytes: 28 characters. */
static void base64(const uint8_t digest[20], char out[29])
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < 7; i++) {
        uint32_t group = (uint32_t)digest[3 * i] << 16 | (uint32_t)digest[3 * i + 1] << 8 | (i < 6 ? digest[3 * i + 2] : 0);
        for (int j = 0; j < 4; j++)
            out[4 * i + j] = alphabet[group >> (18 - 6 * j) & 63];
    }
    out[27] = '=';
    out[28] = 0;
}

static void watch(struct conn *c, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(poller, operation, c->fd, &event);
}

static void drop(struct conn *c)
{
    if (c->fd < 0)
        return;
    close(c->fd);
    c->fd = -1;
    if (c->role == STREAMER) {
        struct conn **link = &streamers;
        while (*link != c)
            link = &(*link)->next;
        *link = c->next;
        for (size_t i = 0; i < c->viewer_count; i++) {
            c->viewers[i]->streamer = NULL;
            drop(c->viewers[i]);
        }
    } else if (c->role == VIEWER && c->streamer) {
        struct conn *s = c->streamer;
        for (size_t i = 0; i < s->viewer_count; i++)
            if (s->viewers[i] == c) {
                s->viewers[i] = s->viewers[--s->viewer_count];
                break;
            }
    }
    c->next = dead; /* Freed later: this round's events may still name it. */
    dead = c;
}

/* Send, or let wait what the kernel refuses; a frame that does not fit there is dropped whole. */
static void put(struct conn *c, const uint8_t *data, size_t size)
{
    ssize_t sent = 0;
    if (!c->waiting_size) {
        sent = send(c->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent == (ssize_t)size)
            return;
        if (sent < 0) {
            if (errno != EAGAIN)
                return; /* epoll will tell. */
            sent = 0;
        }
    }
    size_t rest = size - (size_t)sent;
    if (c->waiting_size + rest > WAITING_MAX && !sent)
        return;
    if (!c->waiting)
        c->waiting = malloc(WAITING_MAX + RECV_SIZE * 64);
    if (c->waiting_start) {
        memmove(c->waiting, c->waiting + c->waiting_start, c->waiting_size);
        c->waiting_start = 0;
    }
    if (!c->waiting_size)
        watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    memcpy(c->waiting + c->waiting_size, data + sent, rest);
    c->waiting_size += rest;
}

static void flush(struct conn *c)
{
    ssize_t sent = send(c->fd, c->waiting + c->waiting_start, c->waiting_size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0)
        return;
    c->waiting_start += (size_t)sent;
    c->waiting_size -= (size_t)sent;
    if (!c->waiting_size) {
        c->waiting_start = 0;
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
    }
}

static void put_text(struct conn *c, const char *type)
{
    uint8_t frame[2 + 125];
    int size = snprintf((char *)frame + 2, 125, "{\"type\": \"%s\", \"stream_id\": \"%s\"}", type, c->id);
    frame[0] = 0x81;
    frame[1] = (uint8_t)size;
    put(c, frame, 2 + (size_t)size);
}

/* Answer an HTTP request, which is complete and ends with a zero. */
static void upgrade(struct conn *c, char *request)
{
    char joined[128], accept[29], answer[256];
    uint8_t digest[20];
    char *key = strcasestr(request, "sec-websocket-key:");
    if (!key || sscanf(key + 18, " %24s", joined) != 1) {
        drop(c);
        return;
    }
    strcat(joined, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    sha1(joined, strlen(joined), digest);
    base64(digest, accept);
    c->role = NEW_STREAMER;
    if (sscanf(request, "GET /ws/view/%64[A-Za-z0-9_-]", c->id) == 1)
        c->role = NEW_VIEWER;
    int size = snprintf(answer, sizeof answer,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
    put(c, (uint8_t *)answer, (size_t)size);
}

static void first_message(struct conn *c, char *text)
{
    if (c->role == NEW_STREAMER) {
        char *id = strstr(text, "\"stream_id\": \"");
        if (!id || sscanf(id + 14, "%64[A-Za-z0-9_-]", c->id) != 1) {
            drop(c);
            return;
        }
        c->role = STREAMER;
        c->next = streamers;
        streamers = c;
        put_text(c, "registered");
        return;
    }
    struct conn *s = streamers;
    while (s && strcmp(s->id, c->id))
        s = s->next;
    if (!s) {
        drop(c);
        return;
    }
    if (s->viewer_count == s->viewer_room) {
        s->viewer_room = s->viewer_room ? s->viewer_room * 2 : 16;
        s->viewers = realloc(s->viewers, s->viewer_room * sizeof *s->viewers);
    }
    s->viewers[s->viewer_count++] = c;
    c->streamer = s;
    c->role = VIEWER;
    put_text(c, "subscribed");
}

static void unmask(uint8_t *payload, size_t size, const uint8_t mask[4])
{
    uint64_t wide, word;
    size_t i = 0;
    memcpy(&wide, mask, 4);
    memcpy((uint8_t *)&wide + 4, mask, 4);
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, payload + i, 8);
        word ^= wide;
        memcpy(payload + i, &word, 8);
    }
    for (; i < size; i++)
        payload[i] ^= mask[i & 3];
}

/* The bytes of the message that starts here, once its header is complete; else the bytes needed to know more. */
static size_t message_size(const uint8_t *data, size_t size, int *known)
{
    *known = 0;
    if (size < 2)
        return 2;
    size_t length = data[1] & 0x7F, header = 6;
    if (length == 126) {
        header = 8;
        if (size < 4)
            return 4;
        length = (size_t)data[2] << 8 | data[3];
    } else if (length == 127) {
        header = HEADER_MAX;
        if (size < 10)
            return 10;
        length = 0;
        for (int i = 2; i < 10; i++)
            length = length << 8 | data[i];
    }
    *known = 1;
    return header + length;
}

/* Handle one complete frame. The viewers' header is built over the client's. */
static void handle(struct conn *c, uint8_t *frame, size_t size)
{
    size_t length = frame[1] & 0x7F, header = length < 126 ? 2 : length == 126 ? 4 : 10;
    uint8_t *payload = frame + header + 4, first = frame[0], *out = payload - header;
    length = size - header - 4;
    unmask(payload, length, payload - 4);
    if (c->role == STREAMER && first == 0x82) {
        memmove(out, frame, header);
        out[1] &= 0x7F;
        for (size_t i = 0; i < c->viewer_count; i++)
            put(c->viewers[i], out, header + length);
    } else if ((first & 0x0F) == 8) {
        drop(c);
    } else if (first == 0x81 && (c->role == NEW_STREAMER || c->role == NEW_VIEWER) && length < 512) {
        char text[512];
        memcpy(text, payload, length);
        text[length] = 0;
        first_message(c, text);
    } else if (first == 0x89) {
        out[0] = 0x8A;
        out[1] = (uint8_t)length;
        put(c, out, 2 + length);
    }
}

/* Handle all complete frames here; return the bytes left over. */
static size_t consume(struct conn *c, uint8_t *data, size_t size)
{
    while (size && c->fd >= 0) {
        int known;
        size_t whole = message_size(data, size, &known);
        if (!known || size < whole)
            return size;
        handle(c, data, whole);
        data += whole;
        size -= whole;
    }
    return 0;
}

static void readable_http(struct conn *c)
{
    char *request = (char *)shared;
    memcpy(request, c->part, c->have);
    ssize_t got = recv(c->fd, request + c->have, HTTP_MAX - c->have, 0);
    if (got <= 0) {
        drop(c);
        return;
    }
    size_t size = c->have + (size_t)got;
    request[size] = 0;
    if (strstr(request, "\r\n\r\n")) { /* The benchmark says no more before it has the answer. */
        c->have = 0;
        upgrade(c, request);
    } else if (size < HTTP_MAX) {
        memcpy(c->part, request, size);
        c->have = size;
    } else {
        drop(c);
    }
}

static void make_room(struct conn *c)
{
    if (c->room < c->need)
        c->part = realloc(c->part, c->room = c->need);
}

static void readable(struct conn *c)
{
    int known;
    if (c->role == HTTP) {
        readable_http(c);
        return;
    }
    if (c->have) { /* Just what is missing of a frame that has come in part, into its own place. */
        ssize_t got = recv(c->fd, c->part + c->have, c->need - c->have, 0);
        if (got <= 0) {
            if (got == 0 || errno != EAGAIN)
                drop(c);
            return;
        }
        c->have += (size_t)got;
        if (c->have < c->need)
            return;
        c->need = message_size(c->part, c->have, &known);
        if (c->have < c->need) {
            make_room(c);
            return;
        }
        c->have = 0;
        handle(c, c->part, c->need);
        return;
    }
    ssize_t got = recv(c->fd, shared, sizeof shared, 0);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN)
            drop(c);
        return;
    }
    size_t left = consume(c, shared, (size_t)got);
    if (left && c->fd >= 0) {
        const uint8_t *rest = shared + got - left;
        c->need = message_size(rest, left, &known);
        make_room(c);
        memcpy(c->part, rest, left);
        c->have = left;
    }
}

static void accept_all(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;
        if (fd < 0)
            return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct conn *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->part = malloc(c->room = HTTP_MAX);
        watch(c, EPOLL_CTL_ADD, EPOLLIN);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event events[EVENTS];
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (argc != 2) {
        fprintf(stderr, "usage: floor PORT\n");
        return 2;
    }
    address.sin_port = htons((uint16_t)atoi(argv[1]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) {
        perror("floor");
        return 1;
    }
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c) {
                accept_all(listener);
                continue;
            }
            if (c->fd >= 0 && events[i].events & EPOLLOUT && c->waiting_size)
                flush(c);
            if (c->fd >= 0 && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                readable(c);
        }
        while (dead) {
            struct conn *c = dead;
            dead = c->next;
            free(c->part);
            free(c->waiting);
            free(c->viewers);
            free(c);
        }
    }
}
