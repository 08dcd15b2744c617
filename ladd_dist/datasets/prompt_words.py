"""The words of written prompts: what is seen, doing what, where, in which light, and how it is pictured."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    """Words that commas divide, on however many lines."""
    return tuple(" ".join(part.split()) for part in text.split(","))


ANIMALS = _words("""
red fox, snow leopard, barn owl, grey heron, tabby cat, old hound, brown bear, tree frog, sea turtle, white horse,
mountain goat, hedgehog, otter, raven, peacock, elephant calf, honey bee, monarch butterfly, dragonfly, garden snail,
hummingbird, kingfisher, roe deer, wild boar, lynx, penguin, seal pup, octopus, clownfish, jellyfish, chameleon,
gecko, rooster, highland cow, black sheep, donkey, hare, squirrel, badger, wolf, tiger, lioness, giraffe, zebra,
koala, red panda, sloth, parrot, flamingo, swan, robin, mantis, ladybird, hermit crab, seahorse, whale, tortoise,
camel, puppy, kitten
""")
DOING = _words("""
asleep, looking into the camera, drinking from a stream, shaking off water, hiding among leaves, crossing a path,
jumping over a log, seen from behind, seen from below, turning its head, resting in the shade, walking through tall
grass, standing very still, looking at its own reflection, waking up, searching for food, in mid-leap, peering round a
corner, covered in raindrops, stretching
""")
PEOPLE = _words("""
old sailor, young violinist, baker, blacksmith, ballet dancer, schoolgirl with plaits, astronaut, market trader,
gardener, shepherd, fisherman, watchmaker, librarian, street musician, chess player, surgeon, mountaineer, potter,
tailor, cyclist, grandmother, boy with freckles, woman with short grey hair, man in a raincoat, welder, beekeeper,
painter, postman, farmer, chef, deep-sea diver, glassblower, skateboarder, carpenter, astronomer, flower seller, train
driver, knight in dented armour, weaver, nurse
""")
AT_WORK = _words("""
laughing, reading a letter, holding a paper lantern, carrying a wicker basket, tying a knot, waiting for a bus,
drinking tea, looking out to sea, mending a net, whistling, with closed eyes, under a yellow umbrella, with a small
dog, holding a bunch of keys, writing in a notebook, seen in profile, seen from behind, with flour on both hands,
wearing a woollen hat, pointing at the sky, walking up a staircase, resting on a bench, with a bicycle, studying an
old map
""")
THINGS = _words("""
teapot, brass telescope, paper boat, wooden chair, violin, typewriter, glass of water, stack of books, pocket watch,
bicycle, oil lamp, rocking horse, gramophone, pair of boots, sewing machine, ceramic bowl, chessboard, globe,
birdcage, accordion, leather suitcase, umbrella, kite, snow globe, candle, hourglass, wheelbarrow, canoe, clay vase,
toy robot, bunch of tulips, jar of honey, paper crane, wind-up frog, ship in a bottle, old camera, wool blanket,
copper kettle, stained-glass lantern, marble bust, fountain pen, hot-air balloon, tent, lighthouse lamp, tin soldier,
piano, anchor, ladder, drum, music box
""")
FOOD = _words("""
bowl of ripe lemons, loaf of bread, plate of sushi, slice of cherry cake, cup of coffee, basket of mushrooms, pear
tart, bunch of grapes, bowl of ramen, stack of pancakes, wedge of blue cheese, pomegranate cut in half, jar of
pickles, bowl of tomato soup, ice-cream cone, pot of rice, heap of spices, plate of oysters, roast pumpkin, glass of
lemonade, box of chocolates, fried egg, bundle of asparagus, bowl of porridge with berries, dish of olives, croissant
""")
PLACES = _words("""
harbour with fishing boats, cobbled alley, night market, railway station, mountain hut, frozen lake, desert road,
greenhouse full of ferns, library with tall shelves, lighthouse on a cliff, terraced rice field, bamboo forest, stone
viaduct, canal with narrow houses, abandoned factory, village square, pine forest, field of sunflowers, vineyard on a
hill, waterfall, beach with black sand, rope bridge, glass skyscraper, windmill, castle ruin, cathedral nave,
fairground, swimming pool, workshop, kitchen, attic, laundrette, observatory, space station, underwater cave, salt
flat, volcano, glacier, heath, marsh with reeds, orchard in bloom, suspension bridge, subway platform, rooftop garden,
amphitheatre, oasis, fjord, coral reef, tea house, barn
""")
WHERE = _words("""
on fresh snow, on a mossy stone, in a meadow, beside a river, on a window sill, in an empty white room, on a wooden
table, in a city street, at the edge of a forest, on a balcony, in front of a brick wall, on a sandy beach, in an old
workshop, under a bridge, on a rooftop, in a walled garden, on a red carpet, among autumn leaves, in a field of
lavender, by an open window, on a marble floor, in a train compartment, on a jetty, in a narrow street, against a
plain grey wall, in a puddle, on a mountain ridge, in a crowded market, behind a curtain, at the foot of a staircase
""")
LIGHT = _words("""
soft morning light, late afternoon sun, overcast sky, golden hour, blue hour, moonlight, candlelight, neon light,
thick fog, light rain, heavy snowfall, harsh noon sun, dappled shade, backlight, northern lights, a thunderstorm far
away, a starry sky, a single lamp, light from a window on the left, dust in a beam of light, dusk, first light of dawn
""")
STYLES = _words("""
photograph, black and white photograph, oil painting, watercolour, charcoal drawing, pencil sketch, linocut, woodcut,
ink drawing, pastel drawing, gouache illustration, children's book illustration, stained-glass window, mosaic,
embroidery, paper collage, pixel art, low-poly render, clay model, isometric illustration, vintage poster, engraving,
fresco, screen print, technical drawing, comic panel, polaroid photograph, macro photograph, aerial photograph,
tapestry, impressionist painting, cubist painting, bronze sculpture, chalk drawing on a blackboard, botanical
illustration
""")
COLOURS = _words("""
red, orange, yellow, green, turquoise, blue, purple, pink, brown, black, white, grey, golden, silver, pale green, dark
blue
""")
LOOKS = _words("""
small, very large, old, brand-new, broken, shiny, dusty, striped, spotted, transparent, wooden, rusty, hand-painted,
woollen, carved, tiny, tall, crooked, plain, ornate
""")
NUMBERS = ("two", "three", "four", "five", "a row of", "a pile of", "dozens of")
SHAPES = _words("cube, ball, cone, cylinder, pyramid, ring, star, disc, spiral, torus")
STUFF = _words("glass, wood, clay, steel, paper, ice, marble, felt, brass, wax, stone, rubber")
RELATIONS = _words("on top of, beside, behind, in front of, underneath, inside, to the left of, to the right of")
VIEWS = _words("""
wide shot, close-up, seen from above, seen from below, shallow depth of field, long exposure, symmetrical composition,
plenty of empty space, seen through a window, silhouette, centred, in fine detail
""")
MOODS = _words("""
calm, cheerful, lonely, mysterious, busy, solemn, playful, dreamlike, melancholy, festive, tense, cosy
""")
